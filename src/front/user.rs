//! Takes the user of a process out of its JSON.
//!
//! In some cases a runtime changes ids before its calls are emulated (noNewPrivileges, crun's chown
//! of a terminal). So ids that the container's user namespace does not map are replaced by mapped
//! ones, the *stand-in*, and the daemon is told the requested user. noNewPrivileges and
//! capabilities are not changed: the kernel enforces them.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::linux::accounts::accounts;
use crate::linux::userns::{IdMap, IdMaps};
use crate::syscalls::profile::Runtime;
use crate::wire::config;
use crate::wire::handover::{NextUser, ProcessUser};

/// The annotation with the requested user: in the runtime's copy of config.json for later `exec`s,
/// and in config.json itself, if that is changed in place, for the next run.
pub(super) const ANNOTATION: &str = "io.subuidless.process.user";

/// The id maps of this process's user namespace.
pub(super) fn own_maps() -> IdMaps {
    IdMaps::of("/proc/self").unwrap_or_else(|_| IdMaps::root_only())
}

/// The id maps of the container that config.json describes.
pub(super) fn maps_of_config(config: &Map<String, Value>) -> IdMaps {
    let Some(namespace) = user_namespace(config) else {
        return own_maps();
    };
    if let Some(path) = namespace.get("path").and_then(Value::as_str) {
        // Usually that of another container: /proc/PID/ns/user.
        let process = path.strip_suffix("/ns/user");
        let maps = process
            .filter(|it| it.starts_with("/proc/"))
            .map(IdMaps::of);
        return maps.and_then(Result::ok).unwrap_or_else(IdMaps::root_only);
    }
    let mappings = |name: &str| {
        let list = config.get("linux")?.get(name)?.as_array()?;
        let number = |entry: &Value, key: &str| u32::try_from(entry.get(key)?.as_u64()?).ok();
        list.iter()
            .map(|entry| Some((number(entry, "containerID")?, number(entry, "size")?)))
            .collect::<Option<Vec<_>>>()
            .filter(|ranges| !ranges.is_empty())
            .map(IdMap::of_ranges)
    };
    match (mappings("uidMappings"), mappings("gidMappings")) {
        (Some(uids), Some(gids)) => IdMaps { uids, gids },
        // The default of the runtimes.
        _ => IdMaps::root_only(),
    }
}

/// The uid and gid to give to the runtime in place of `requested`. Returns `None` if `requested`
/// itself is mapped and has no supplementary groups.
fn stand_in(mapped: &IdMaps, requested: &ProcessUser) -> Option<(u32, u32)> {
    let is_mapped = mapped.uids.contains(requested.uid) && mapped.gids.contains(requested.gid);
    if is_mapped && requested.additional_gids.is_empty() {
        return None;
    }
    let root_or_first = |map: &IdMap| match map.contains(0) {
        true => 0,
        false => map.first().unwrap_or(0),
    };
    Some((root_or_first(&mapped.uids), root_or_first(&mapped.gids)))
}

pub(super) fn user_namespace(config: &Map<String, Value>) -> Option<&Value> {
    let namespaces = config.get("linux")?.get("namespaces")?.as_array()?;
    namespaces
        .iter()
        .find(|namespace| namespace.get("type").and_then(Value::as_str) == Some("user"))
}

/// Replaces the user in a `process` object by a stand-in if necessary. Returns the user to
/// announce.
pub(super) fn take(process: &mut Map<String, Value>, mapped: &IdMaps) -> NextUser {
    let requested = config::user(process);
    let Some((uid, gid)) = stand_in(mapped, &requested) else {
        return as_mapped(requested);
    };
    let user = process.entry("user").or_insert_with(|| json!({}));
    if let Value::Object(user) = user {
        // Other keys, such as umask, are kept.
        user.insert("uid".into(), uid.into());
        user.insert("gid".into(), gid.into());
        user.remove("additionalGids");
    }
    if requested.uid != 0 {
        keep_dumpable(process);
    }
    NextUser::User(requested)
}

/// Keeps the process dumpable over execve(2). One that gains capabilities is no longer dumpable
/// (kernel/cred.c, commit_creds), and cannot open its own files in /proc. To the kernel the
/// stand-in is root and gains the whole bounding set, unless that is permitted before. The
/// emulation decides which capabilities the program sees.
fn keep_dumpable(process: &mut Map<String, Value>) {
    let is_true = |value: &Value| value.as_bool() == Some(true);
    if process.get("noNewPrivileges").is_some_and(is_true) {
        return;
    }
    let sets = process.get_mut("capabilities");
    if let Some(sets) = sets.and_then(Value::as_object_mut)
        && let Some(bounding) = sets.get("bounding").cloned()
    {
        sets.insert("permitted".into(), bounding);
    }
}

/// The announcement of a user that is mapped. Root is announced, too: the terminal may have had
/// another owner before.
fn as_mapped(requested: ProcessUser) -> NextUser {
    match (requested.uid, requested.gid) {
        (0, 0) => NextUser::User(requested),
        _ => NextUser::AsIs,
    }
}

/// As [`take`], for a config.json, which an earlier run may have changed in place. Adds the
/// annotation.
pub(super) fn take_and_note(config: &mut Map<String, Value>, mapped: &IdMaps) -> NextUser {
    let noted = config
        .get("annotations")
        .and_then(|annotations| annotations.get(ANNOTATION)?.as_str())
        .and_then(|text| serde_json::from_str::<ProcessUser>(text).ok());
    let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) else {
        return NextUser::AsIs;
    };
    let present = config::user(process);
    if let Some(noted) = noted
        && present.additional_gids.is_empty()
        && stand_in(mapped, &noted) == Some((present.uid, present.gid))
    {
        return NextUser::User(noted);
    }
    let next = take(process, mapped);
    if let NextUser::User(user) = &next
        && stand_in(mapped, user).is_some()
    {
        let annotations = config.entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            let text = serde_json::to_string(user).unwrap_or_default();
            annotations.insert(ANNOTATION.into(), text.into());
        }
    }
    next
}

/// Parses `exec --user UID[:GID]`. Returns the user to announce, and the option's value for the
/// runtime; `None` if the option has another form.
pub(super) fn of_option(
    option: &OsStr,
    additional_gids: Vec<u32>,
    mapped: &IdMaps,
) -> Option<(NextUser, String)> {
    let text = option.to_str()?;
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid.parse().ok()?, gid.parse().ok()?),
        None => (text.parse().ok()?, 0),
    };
    let requested = ProcessUser {
        uid,
        gid,
        additional_gids,
    };
    Some(match stand_in(mapped, &requested) {
        None => (as_mapped(requested), text.to_owned()),
        Some((uid, gid)) => (NextUser::User(requested), format!("{uid}:{gid}")),
    })
}

/// Adds HOME to the environment if it is not set; otherwise the runtime would use that of the
/// stand-in. To runc an empty HOME counts as not set.
pub(super) fn add_home(
    process: &mut Map<String, Value>,
    rootfs: &Path,
    next: &NextUser,
    kind: Runtime,
) {
    let NextUser::User(user) = next else {
        return;
    };
    let environment = process.entry("env").or_insert_with(|| json!([]));
    let Value::Array(environment) = environment else {
        return;
    };
    let value = |variable: &Value| variable.as_str()?.strip_prefix("HOME=").map(str::is_empty);
    let counts = |is_empty: bool| kind == Runtime::Crun || !is_empty;
    if environment
        .iter()
        .any(|variable| value(variable).is_some_and(counts))
    {
        return;
    }
    environment.retain(|variable| value(variable).is_none());
    let home = home(rootfs, user.uid).unwrap_or_else(|| "/".to_owned());
    environment.push(format!("HOME={home}").into());
}

/// The home directory of a uid in passwd(5).
fn home(rootfs: &Path, uid: u32) -> Option<String> {
    let mut its = accounts(rootfs).filter(|account| account.uid == uid);
    its.find_map(|account| account.home)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn announced(uid: u32, gid: u32, additional_gids: &[u32]) -> NextUser {
        NextUser::User(ProcessUser {
            uid,
            gid,
            additional_gids: additional_gids.to_vec(),
        })
    }

    #[test]
    fn ids_that_are_not_mapped_are_replaced_and_told() {
        let mut process =
            object(json!({"user": {"uid": 999, "gid": 5, "additionalGids": [7], "umask": 18}}));
        let next = take(&mut process, &IdMaps::root_only());
        assert_eq!(next, announced(999, 5, &[7]));
        assert_eq!(process["user"], json!({"uid": 0, "gid": 0, "umask": 18}));
        let before = process.clone();
        let next = take(&mut process, &IdMaps::root_only());
        assert_eq!((next, process), (announced(0, 0, &[]), before));
    }

    #[test]
    fn the_user_who_is_mapped_to_herself_stays() {
        let mapped = maps_of_config(&object(json!({"linux": {
            "namespaces": [{"type": "user"}],
            "uidMappings": [{"containerID": 1001, "hostID": 0, "size": 1}],
            "gidMappings": [{"containerID": 1002, "hostID": 0, "size": 1}],
        }})));
        let mut process = object(json!({"user": {"uid": 1001, "gid": 1002}}));
        assert_eq!(take(&mut process, &mapped), NextUser::AsIs);
        let mut process = object(json!({"user": {"uid": 1000, "gid": 1002}}));
        assert_eq!(take(&mut process, &mapped), announced(1000, 1002, &[]));
        assert_eq!(process["user"], json!({"uid": 1001, "gid": 1002}));
        let mut rootless = object(json!({}));
        assert_eq!(take(&mut rootless, &mapped), announced(0, 0, &[]));
    }

    #[test]
    fn a_file_that_is_changed_in_place_means_the_same_the_next_time() {
        let mapped = IdMaps::root_only();
        let mut config = object(json!({"process": {"user": {"uid": 999, "gid": 0}}}));
        assert_eq!(take_and_note(&mut config, &mapped), announced(999, 0, &[]));
        let once = config.clone();
        assert_eq!(once["process"]["user"]["uid"], 0);
        assert_eq!(take_and_note(&mut config, &mapped), announced(999, 0, &[]));
        assert_eq!(config, once);
        // A user that was written into the file since then counts.
        config["process"]["user"] = json!({"uid": 33, "gid": 33});
        assert_eq!(take_and_note(&mut config, &mapped), announced(33, 33, &[]));
    }

    #[test]
    fn users_of_the_command_line_are_numbers() {
        let mapped = IdMaps::root_only();
        let of = |text: &str| of_option(OsStr::new(text), Vec::new(), &mapped);
        assert_eq!(of("999"), Some((announced(999, 0, &[]), "0:0".to_owned())));
        assert_eq!(
            of("999:5"),
            Some((announced(999, 5, &[]), "0:0".to_owned()))
        );
        assert_eq!(of("0"), Some((announced(0, 0, &[]), "0".to_owned())));
        assert_eq!(of("web"), None);
    }
}
