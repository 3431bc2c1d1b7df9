//! From the syscall table to the runtime's `linux.seccomp` object.
//!
//! A profile is woven out of a base (another profile, or "everything is allowed"): a call that the
//! base allows and the table names becomes a notification, under the base's own conditions; a call
//! that the base forbids stays forbidden. Runtimes let the first matching rule win, so the names
//! are taken out of the base's rules, and conditional notifications get a complementary allowing
//! rule.

mod filter;

pub(crate) use filter::{denial, program};

use serde_json::{Map, Value, json};

use crate::syscalls::{Row, TABLE, Trap};

const NOTIFY: &str = "SCMP_ACT_NOTIFY";
const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";

/// Calls submitted to an io_uring pass by every filter.
const IO_URING: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

/// Which JSON is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// `linux.seccomp` of an OCI config.json
    Oci,
    /// A file for podman's and buildah's `--security-opt seccomp=`
    Podman,
}

/// The runtime that loads the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Runtime {
    /// Takes flags such as SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    Crun,
    /// Refuses flags
    Runc,
}

/// What a profile is to be like.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) format: Format,
    pub(crate) runtime: Runtime,
    /// The receiver's socket, absolute.
    pub(crate) listener_path: Option<&'a str>,
    /// The container's capabilities, on which a base in podman's form may depend.
    pub(crate) capabilities: &'a [&'a str],
    /// Whether the running kernel knows SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (5.19).
    pub(crate) wait_killable: bool,
    /// Calls that have no names are denied already, by [`denial`].
    pub(crate) is_denied: bool,
}

/// The capabilities that podman gives a container by default.
pub(crate) const USUAL_CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The base that allows everything.
pub(crate) fn allow_all() -> Map<String, Value> {
    let mut base = Map::new();
    base.insert("defaultAction".into(), ALLOW.into());
    base.insert("architectures".into(), json!(architectures()));
    base
}

/// A profile whose default is to allow, with that default for calls that have names only. What
/// cannot be named cannot be notified either, and does not exist, as to an older kernel: it could
/// be a call that changes what we emulate (setxattrat(2), in libseccomp before 2.6). Runtimes take
/// some 50 ms to load such a profile.
///
/// One that looks at arguments stays as it is: libseccomp has no "otherwise" but the default.
fn closed(base: &Map<String, Value>, rules: &[Value]) -> Option<(Map<String, Value>, Vec<Value>)> {
    let default_action = text(base, "defaultAction")?;
    let mut named = Vec::new();
    for rule in rules {
        let rule = rule.as_object()?;
        let args = rule.get("args").and_then(Value::as_array);
        if args.is_some_and(|args| !args.is_empty()) {
            return None;
        }
        named.extend(rule_names(rule).ok()?);
    }
    let mut others = filter::all_names();
    others.retain(|name| !named.contains(name));
    let mut rules = rules.to_vec();
    rules.push(json!({"names": others, "action": default_action}));
    let mut base = base.clone();
    base.insert("defaultAction".into(), ERRNO.into());
    base.insert("defaultErrnoRet".into(), libc::ENOSYS.into());
    Some((base, rules))
}

/// Whether a profile lets calls through that have no names.
pub(crate) fn is_open(profile: &Map<String, Value>) -> bool {
    text(profile, "defaultAction").is_some_and(lets_pass)
}

/// Weaves the table into `base`.
///
/// # Errors
///
/// In words, if `base` is no seccomp profile, or notifies another agent already: the kernel takes
/// one listener only.
pub(crate) fn weave(
    base: &Map<String, Value>,
    request: &Request,
) -> Result<Map<String, Value>, String> {
    let default_action = text(base, "defaultAction").ok_or("it has no \"defaultAction\"")?;
    let rules = match base.get("syscalls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(rules)) => rules.clone(),
        Some(_) => return Err("its \"syscalls\" is not a list".to_owned()),
    };
    let closed = match lets_pass(default_action) && !request.is_denied {
        true => closed(base, &rules),
        false => None,
    };
    let (base, rules) = match &closed {
        Some((base, rules)) => (base, rules),
        None => (base, &rules),
    };
    let default_action = text(base, "defaultAction").unwrap_or_default();
    let mut woven: Vec<Value> = Vec::new();
    let mut kept: Vec<Value> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for rule in rules {
        let rule = rule
            .as_object()
            .ok_or("a rule of its \"syscalls\" is no object")?;
        let Some(rule) = unwoven(rule, default_action)? else {
            continue;
        };
        let Some(rule) = for_format(&rule, request) else {
            continue;
        };
        let names = rule_names(&rule)?;
        let (ours, others) = split(&rule, &names);
        named.extend(
            names
                .iter()
                .filter_map(|name| row(name))
                .map(|row| row.name),
        );
        for rule in ours.into_iter().flat_map(|row| rules_for(row, &rule)) {
            // A rule that was woven before comes back once for each of its conditions.
            if !woven.contains(&rule) {
                woven.push(rule);
            }
        }
        if !others.is_empty() {
            let mut rest = rule.clone();
            rest.insert("names".into(), json!(others));
            kept.push(Value::Object(rest));
        }
    }
    if lets_pass(default_action) {
        // A name that this machine's library does not know would only be complained of.
        let unnamed = TABLE
            .iter()
            .filter(|row| !named.contains(&row.name) && row.bare_number().is_none());
        woven.extend(unnamed.flat_map(|row| notifications(row, &Map::new())));
    }
    woven.push(json!({"names": IO_URING, "action": ERRNO, "errnoRet": libc::ENOSYS}));
    woven.extend(kept);

    let mut profile = base.clone();
    if request.format == Format::Oci {
        profile.remove("archMap");
        profile.remove("defaultErrno");
        if !profile.contains_key("architectures") {
            profile.insert("architectures".into(), json!(architectures()));
        }
    }
    add_flags(&mut profile, request);
    if let Some(path) = request.listener_path {
        profile.insert("listenerPath".into(), path.into());
    }
    profile.insert("syscalls".into(), Value::Array(woven));
    Ok(profile)
}

const ALREADY: &str = "it notifies another agent of some calls already (SCMP_ACT_NOTIFY), and the kernel takes one \
                       listener for a container only: remove those rules first";

fn add_flags(profile: &mut Map<String, Value>, request: &Request) {
    const WAIT_KILLABLE: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
    match request.runtime {
        Runtime::Runc => {
            profile.remove("flags");
        }
        Runtime::Crun if request.wait_killable => {
            let flags = profile.entry("flags").or_insert_with(|| json!([]));
            if let Value::Array(flags) = flags
                && !flags.iter().any(|flag| flag == WAIT_KILLABLE)
            {
                flags.push(WAIT_KILLABLE.into());
            }
        }
        Runtime::Crun => {}
    }
}

/// A rule in the wanted format. podman's rules may hold for some capabilities and architectures
/// only; in the OCI form these conditions are decided here.
fn for_format(rule: &Map<String, Value>, request: &Request) -> Option<Map<String, Value>> {
    let mut rule = rule.clone();
    if request.format == Format::Podman {
        return Some(rule);
    }
    let holds = |key: &str, name: &str, value: &dyn Fn(&str) -> bool| {
        let list = rule.get(key)?.get(name)?.as_array()?;
        let mut values = list.iter().filter_map(Value::as_str).peekable();
        values.peek()?;
        Some(values.any(value))
    };
    let capability = |name: &str| request.capabilities.contains(&name);
    let architecture = |name: &str| name == go_architecture();
    let included = holds("includes", "caps", &capability).unwrap_or(true)
        && holds("includes", "arches", &architecture).unwrap_or(true);
    let excluded = holds("excludes", "caps", &capability).unwrap_or(false)
        || holds("excludes", "arches", &architecture).unwrap_or(false);
    if !included || excluded {
        return None;
    }
    for key in ["includes", "excludes", "comment", "errno"] {
        rule.remove(key);
    }
    if rule
        .get("args")
        .is_some_and(|args| args.is_null() || *args == json!([]))
    {
        rule.remove("args");
    }
    if rule.get("errnoRet").is_some_and(Value::is_null) {
        rule.remove("errnoRet");
    }
    Some(rule)
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

/// The names of a rule; older profiles have a single `name`.
fn rule_names(rule: &Map<String, Value>) -> Result<Vec<String>, String> {
    let strings = |list: &Vec<Value>| {
        list.iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
    };
    match (rule.get("names"), text(rule, "name")) {
        (Some(Value::Array(list)), _) => strings(list),
        (_, Some(name)) => Some(vec![name.to_owned()]),
        _ => None,
    }
    .ok_or_else(|| "a rule of its \"syscalls\" has no \"names\"".to_owned())
}

fn row(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

/// A rule as it was before a profile of ours was woven into it, so that weaving twice is weaving
/// once.
fn unwoven(
    rule: &Map<String, Value>,
    default_action: &str,
) -> Result<Option<Map<String, Value>>, String> {
    let names = rule_names(rule)?;
    let rows: Option<Vec<&Row>> = names.iter().map(|name| row(name)).collect();
    let action = text(rule, "action");
    match (action, rows) {
        (Some(NOTIFY), None) => Err(ALREADY.to_owned()),
        // The notifications of a base that allows everything stand for nothing.
        (Some(NOTIFY), Some(_)) if lets_pass(default_action) => Ok(None),
        (Some(NOTIFY), Some(rows)) => {
            let mut rule = rule.clone();
            rule.insert("action".into(), ALLOW.into());
            if rows.iter().any(|row| row.trap != Trap::Always) {
                rule.remove("args");
            }
            Ok(Some(rule))
        }
        (Some(action), Some(rows)) if lets_pass(action) && is_complement(&rows, rule) => Ok(None),
        _ => Ok(Some(rule.clone())),
    }
}

fn is_complement(rows: &[&Row], rule: &Map<String, Value>) -> bool {
    matches!(rows, [row] if complement(row).iter().any(|args| rule.get("args") == Some(args)))
}

/// Whether calls go on to the kernel, noted down or not.
fn lets_pass(action: &str) -> bool {
    matches!(action, ALLOW | "SCMP_ACT_LOG")
}

/// The names of an allowing rule that become notifications, and those that stay in it.
fn split(rule: &Map<String, Value>, names: &[String]) -> (Vec<&'static Row>, Vec<String>) {
    let allowed = text(rule, "action").is_some_and(lets_pass);
    let mut ours = Vec::new();
    let mut others = Vec::new();
    for name in names {
        if IO_URING.contains(&name.as_str()) {
            continue;
        }
        match row(name) {
            Some(row) if allowed && !conflicts(row, rule) => ours.push(row),
            _ => others.push(name.clone()),
        }
    }
    (ours, others)
}

/// A filter cannot compare one argument twice: a rule that looks at ours already (clone without
/// CLONE_NEW* flags) is left alone, since what it allows is not what we wait for.
fn conflicts(row: &Row, rule: &Map<String, Value>) -> bool {
    let args = rule.get("args").and_then(Value::as_array);
    args.is_some_and(|args| !args.is_empty()) && row.trap != Trap::Always
}

/// `rule`, narrowed to one row: notify what traps, allow the rest.
fn rules_for(row: &Row, rule: &Map<String, Value>) -> Vec<Value> {
    let mut rules = notifications(row, rule);
    rules.extend(complement(row).into_iter().map(|args| {
        let mut rule = with_names(row, rule);
        rule.insert("args".into(), args);
        Value::Object(rule)
    }));
    rules
}

fn with_names(row: &Row, rule: &Map<String, Value>) -> Map<String, Value> {
    let mut rule = rule.clone();
    rule.remove("name");
    rule.insert("names".into(), json!([row.name]));
    rule
}

fn notifications(row: &Row, rule: &Map<String, Value>) -> Vec<Value> {
    let mut rule = with_names(row, rule);
    rule.insert("action".into(), NOTIFY.into());
    let narrowed = |comparison: Comparison| {
        let mut rule = rule.clone();
        rule.insert("args".into(), json!([comparison.to_json()]));
        Value::Object(rule)
    };
    match comparisons(row.trap) {
        comparisons if comparisons.is_empty() => vec![Value::Object(rule)],
        comparisons => comparisons.into_iter().map(narrowed).collect(),
    }
}

/// What a filter compares an argument with.
#[derive(Debug, Clone, Copy)]
enum Comparison {
    /// Filters compare 64 bits: a −1 that was sign-extended into the upper half traps, too, and is
    /// handled like any other.
    IsNotMinusOne {
        arg: u32,
    },
    Masked {
        arg: u32,
        mask: u64,
        bits: u64,
    },
}

impl Comparison {
    fn to_json(self) -> Value {
        match self {
            Self::IsNotMinusOne { arg } => {
                json!({"index": arg, "value": u32::MAX, "op": "SCMP_CMP_NE"})
            }
            Self::Masked { arg, mask, bits } => masked(arg, mask, bits),
        }
    }
}

/// A call traps if one of these holds; there is none where all calls trap.
fn comparisons(trap: Trap) -> Vec<Comparison> {
    match trap {
        Trap::Always => Vec::new(),
        Trap::ChangesOwner { uid, gid } => [uid, gid]
            .map(|arg| Comparison::IsNotMinusOne { arg })
            .into(),
        Trap::Masked { arg, mask, bits } => vec![Comparison::Masked { arg, mask, bits }],
        // One after the other, each without those before: no call matches twice.
        Trap::HasAny { arg, bits } => each_bit(bits)
            .map(|bit| Comparison::Masked {
                arg,
                mask: bits & (bit | (bit - 1)),
                bits: bit,
            })
            .collect(),
    }
}

/// The arguments of the calls that do not trap, one rule's after the other.
fn complement(row: &Row) -> Vec<Value> {
    match row.trap {
        Trap::Always => Vec::new(),
        Trap::ChangesOwner { uid, gid } => vec![json!([is_minus_one(uid), is_minus_one(gid)])],
        Trap::HasAny { arg, bits } => vec![json!([masked(arg, bits, 0)])],
        // Those that differ in one bit or another.
        Trap::Masked { arg, mask, bits } => each_bit(mask)
            .map(|bit| json!([masked(arg, bit, !bits & bit)]))
            .collect(),
    }
}

fn each_bit(bits: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS)
        .map(|shift| 1 << shift)
        .filter(move |bit| bits & bit != 0)
}

fn is_minus_one(index: u32) -> Value {
    json!({"index": index, "value": u32::MAX, "op": "SCMP_CMP_EQ"})
}

fn masked(index: u32, mask: u64, value: u64) -> Value {
    json!({"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
}

/// The architectures whose calls a process of this machine can make.
fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    }
}

/// This machine in the spelling of podman's `arches`.
fn go_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

#[cfg(test)]
mod tests;
