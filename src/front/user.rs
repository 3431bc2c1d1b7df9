//! Whom a process is to be, taken out of its JSON.
//!
//! A runtime changes ids before the emulation can help it in all cases (noNewPrivileges, crun's
//! chown of a terminal), so it is told to change none: an id that the container's user namespace
//! does not map is replaced by one that it does, and the daemon is told of the real wish.
//! noNewPrivileges and capabilities stay as they are: the kernel holds the process to them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use serde_json::{Map, Value, json};

use crate::syscalls::profile::Runtime;
use crate::wire::handover::{NextUser, ProcessUser};

/// In what the runtime keeps of config.json: the wish, for processes that are started later; and
/// where config.json itself is changed, for the next time.
pub(super) const ANNOTATION: &str = "io.subuidless.process.user";

/// The ids that a user namespace maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MappedIds {
    uids: Vec<Range>,
    gids: Vec<Range>,
}

/// First id inside, and how many.
type Range = (u32, u32);

impl MappedIds {
    /// Of a process of any user namespace at or below this one.
    pub(super) fn of_process(pid: &str) -> Option<Self> {
        let read = |name| {
            let text = fs::read_to_string(format!("/proc/{pid}/{name}")).ok()?;
            text.lines().map(range).collect::<Option<Vec<Range>>>()
        };
        Some(Self {
            uids: read("uid_map")?,
            gids: read("gid_map")?,
        })
    }

    pub(super) fn own() -> Self {
        Self::of_process("self").unwrap_or_else(Self::root_only)
    }

    /// Of the container that config.json describes.
    pub(super) fn of_config(config: &Map<String, Value>) -> Self {
        let Some(namespace) = user_namespace(config) else {
            return Self::own();
        };
        if let Some(path) = namespace.get("path").and_then(Value::as_str) {
            // Of another container, most likely: /proc/PID/ns/user.
            let pid = path
                .strip_prefix("/proc/")
                .and_then(|rest| rest.split('/').next());
            return pid
                .and_then(Self::of_process)
                .unwrap_or_else(Self::root_only);
        }
        let mappings = |name: &str| {
            let list = config.get("linux")?.get(name)?.as_array()?;
            let number = |entry: &Value, key: &str| u32::try_from(entry.get(key)?.as_u64()?).ok();
            list.iter()
                .map(|entry| Some((number(entry, "containerID")?, number(entry, "size")?)))
                .collect::<Option<Vec<Range>>>()
                .filter(|ranges| !ranges.is_empty())
        };
        match (mappings("uidMappings"), mappings("gidMappings")) {
            (Some(uids), Some(gids)) => Self { uids, gids },
            // What runtimes make of it.
            _ => Self::root_only(),
        }
    }

    fn root_only() -> Self {
        Self {
            uids: vec![(0, 1)],
            gids: vec![(0, 1)],
        }
    }

    /// Whether these are all ids that there are, so that there is nothing to emulate.
    pub(super) fn are_all(&self) -> bool {
        let all = |ranges: &[Range]| ranges.iter().any(|(_, count)| *count == u32::MAX);
        all(&self.uids) && all(&self.gids)
    }

    /// Whom the runtime makes a process that is to be `wish`; `None`: just that.
    fn stand_in(&self, wish: &ProcessUser) -> Option<(u32, u32)> {
        let maps = |ranges: &[Range], id: u32| {
            ranges
                .iter()
                .any(|(first, count)| id.wrapping_sub(*first) < *count)
        };
        if maps(&self.uids, wish.uid)
            && maps(&self.gids, wish.gid)
            && wish.additional_gids.is_empty()
        {
            return None;
        }
        let root_or_first = |ranges: &[Range]| match maps(ranges, 0) {
            true => 0,
            false => ranges.first().map_or(0, |(first, _)| *first),
        };
        Some((root_or_first(&self.uids), root_or_first(&self.gids)))
    }
}

pub(super) fn user_namespace(config: &Map<String, Value>) -> Option<&Value> {
    let namespaces = config.get("linux")?.get("namespaces")?.as_array()?;
    namespaces
        .iter()
        .find(|namespace| namespace.get("type").and_then(Value::as_str) == Some("user"))
}

/// A line of uid_map (user_namespaces(7)): inside, outside, length.
fn range(line: &str) -> Option<Range> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok::<u32, _>(_)), Some(Ok(count))) => Some((first, count)),
        _ => None,
    }
}

/// Takes the user out of a `process` object that the runtime is to read.
pub(super) fn take(process: &mut Map<String, Value>, mapped: &MappedIds) -> NextUser {
    let wish = wish(process);
    let Some((uid, gid)) = mapped.stand_in(&wish) else {
        return as_mapped(wish);
    };
    let user = process.entry("user").or_insert_with(|| json!({}));
    if let Value::Object(user) = user {
        // What else is there (umask) stays.
        user.insert("uid".into(), uid.into());
        user.insert("gid".into(), gid.into());
        user.remove("additionalGids");
    }
    if wish.uid != 0 {
        keep_dumpable(process);
    }
    NextUser::User(wish)
}

/// A process that gains capabilities by execve(2) is no longer dumpable (kernel/cred.c,
/// commit_creds), and its own files in /proc are closed to it. To the kernel the stand-in is root,
/// and gains the whole bounding set; unless it has that before. What the program has of it is the
/// emulation's business.
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

/// Root is told of all the same: her terminal may be one that was somebody else's.
fn as_mapped(wish: ProcessUser) -> NextUser {
    match (wish.uid, wish.gid) {
        (0, 0) => NextUser::User(wish),
        _ => NextUser::AsIs,
    }
}

/// As [`take`], of a config.json, which may have been changed in place before.
pub(super) fn take_and_note(config: &mut Map<String, Value>, mapped: &MappedIds) -> NextUser {
    let noted = config
        .get("annotations")
        .and_then(|annotations| annotations.get(ANNOTATION)?.as_str())
        .and_then(|text| serde_json::from_str::<ProcessUser>(text).ok());
    let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) else {
        return NextUser::AsIs;
    };
    let present = wish(process);
    if let Some(noted) = noted
        && present.additional_gids.is_empty()
        && mapped.stand_in(&noted) == Some((present.uid, present.gid))
    {
        return NextUser::User(noted);
    }
    let next = take(process, mapped);
    if let NextUser::User(user) = &next
        && mapped.stand_in(user).is_some()
    {
        let annotations = config.entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            let text = serde_json::to_string(user).unwrap_or_default();
            annotations.insert(ANNOTATION.into(), text.into());
        }
    }
    next
}

/// Whom a `process` object names.
fn wish(process: &Map<String, Value>) -> ProcessUser {
    process.get("user").map(user).unwrap_or_default()
}

fn user(value: &Value) -> ProcessUser {
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    let id = |key| value.get(key).and_then(number).unwrap_or_default();
    let gids = value.get("additionalGids").and_then(Value::as_array);
    ProcessUser {
        uid: id("uid"),
        gid: id("gid"),
        additional_gids: gids.into_iter().flatten().filter_map(number).collect(),
    }
}

/// Of `exec --user UID[:GID]`: the wish, and what the runtime is told instead; `None` for what is
/// no such thing.
pub(super) fn of_option(
    option: &OsStr,
    additional_gids: Vec<u32>,
    mapped: &MappedIds,
) -> Option<(NextUser, String)> {
    let text = option.to_str()?;
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid.parse().ok()?, gid.parse().ok()?),
        None => (text.parse().ok()?, 0),
    };
    let wish = ProcessUser {
        uid,
        gid,
        additional_gids,
    };
    Some(match mapped.stand_in(&wish) {
        None => (as_mapped(wish), text.to_owned()),
        Some((uid, gid)) => (NextUser::User(wish), format!("{uid}:{gid}")),
    })
}

/// Gives the process a HOME where it has none, and where `kind` of runtime would take an empty one
/// for none: it would give it the stand-in's.
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

/// passwd(5)
fn home(rootfs: &Path, uid: u32) -> Option<String> {
    lines_in(rootfs, "etc/passwd").iter().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_it = fields.get(2)?.parse() == Ok(uid);
        fields
            .get(5)
            .filter(|_| is_it)
            .map(|home| (*home).to_owned())
    })
}

/// Far above any table of users that is a file.
const MAX_FILE: u64 = 16 << 20;

/// The lines of a file of a root file system, whose links lead nowhere else, and which may be made
/// of anything. None without it.
pub(crate) fn lines_in(rootfs: &Path, file: &str) -> Vec<String> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let read = || -> io::Result<String> {
        let file = File::from(openat2(File::open(rootfs)?, file, how)?);
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(MAX_FILE).read_to_end(&mut bytes)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().map(str::to_owned).collect()
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
        let next = take(&mut process, &MappedIds::root_only());
        assert_eq!(next, announced(999, 5, &[7]));
        assert_eq!(process["user"], json!({"uid": 0, "gid": 0, "umask": 18}));
        let before = process.clone();
        let next = take(&mut process, &MappedIds::root_only());
        assert_eq!((next, process), (announced(0, 0, &[]), before));
    }

    #[test]
    fn the_user_who_is_mapped_to_herself_stays() {
        let mapped = MappedIds::of_config(&object(json!({"linux": {
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
        let mapped = MappedIds::root_only();
        let mut config = object(json!({"process": {"user": {"uid": 999, "gid": 0}}}));
        assert_eq!(take_and_note(&mut config, &mapped), announced(999, 0, &[]));
        let once = config.clone();
        assert_eq!(once["process"]["user"]["uid"], 0);
        assert_eq!(take_and_note(&mut config, &mapped), announced(999, 0, &[]));
        assert_eq!(config, once);
        // Somebody else's change counts.
        config["process"]["user"] = json!({"uid": 33, "gid": 33});
        assert_eq!(take_and_note(&mut config, &mapped), announced(33, 33, &[]));
    }

    #[test]
    fn users_of_the_command_line_are_numbers() {
        let mapped = MappedIds::root_only();
        let of = |text: &str| of_option(OsStr::new(text), Vec::new(), &mapped);
        assert_eq!(of("999"), Some((announced(999, 0, &[]), "0:0".to_owned())));
        assert_eq!(
            of("999:5"),
            Some((announced(999, 5, &[]), "0:0".to_owned()))
        );
        assert_eq!(of("0"), Some((announced(0, 0, &[]), "0".to_owned())));
        assert_eq!(of("web"), None);
    }

    #[test]
    fn only_a_map_of_everything_needs_no_emulation() {
        assert!(!MappedIds::root_only().are_all());
        let all = MappedIds {
            uids: vec![(0, u32::MAX)],
            gids: vec![(0, u32::MAX)],
        };
        assert!(all.are_all());
        assert_eq!(range("         0       1001          1"), Some((0, 1)));
        assert_eq!(range("0 0"), None);
    }
}
