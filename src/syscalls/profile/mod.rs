//! Makes the runtime's `linux.seccomp` object from the syscall table.
//!
//! A profile is woven from a base (another profile, or "everything is allowed"): a call that the
//! base allows and the table names becomes a notification, under the base's own conditions; a call
//! that the base forbids stays forbidden. In runtimes the first matching rule wins, so the names
//! are removed from the base's rules, and a conditional notification gets a complementary rule that
//! allows the other calls.

mod assembler;
mod filter;

pub(crate) use filter::{denial, program};

use serde_json::{Map, Value, json};
use subuidless_fast::facts::MAGIC;

use crate::syscalls::{Condition, Row, Scope, TABLE, Trap};
use crate::wire::permissions::Permissions;

const NOTIFY: &str = "SCMP_ACT_NOTIFY";
const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";

/// Denied, because no seccomp filter sees the operations that are submitted to an io_uring.
const IO_URING: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

/// The format of the JSON output.
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
    /// Accepts flags such as SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    Crun,
    /// Refuses flags
    Runc,
}

/// The properties of the profile to make.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) format: Format,
    pub(crate) runtime: Runtime,
    /// The absolute path of the daemon's control socket.
    pub(crate) listener_path: Option<&'a str>,
    /// The container's capabilities: rules of a base in podman's format may depend on them.
    pub(crate) capabilities: &'a [&'a str],
    /// Whether the running kernel knows SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (5.19).
    pub(crate) wait_killable: bool,
    /// The filter of [`denial`] already denies the table's calls that libseccomp has no names for.
    pub(crate) is_denied: bool,
    /// With the fast path, the calls that the preloaded library makes itself are allowed.
    pub(crate) scope: Scope,
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

/// The base profile that allows everything.
pub(crate) fn allow_all() -> Map<String, Value> {
    let mut base = Map::new();
    base.insert("defaultAction".into(), ALLOW.into());
    base.insert("architectures".into(), json!(architectures()));
    base
}

/// Restricts a base whose default is to allow: only calls that libseccomp has names for are
/// allowed, all others fail with ENOSYS, as on an older kernel.
///
/// A call without a name cannot be notified, and it could change emulated state (setxattrat(2), in
/// libseccomp before 2.6). Runtimes need some 50 ms to load such a profile. Returns `None`, so that
/// the base stays as it is, if one of its rules compares arguments: for the calls that do not
/// match, libseccomp has no action but the default.
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

/// Whether a profile allows calls that libseccomp has no names for.
pub(crate) fn is_open(profile: &Map<String, Value>) -> bool {
    text(profile, "defaultAction").is_some_and(lets_pass)
}

/// Whether a profile, woven or not, forbids a call that the preloaded library makes itself.
pub(crate) fn forbids_library(profile: &Map<String, Value>) -> bool {
    let request = Request {
        format: Format::Oci,
        runtime: Runtime::Crun,
        listener_path: None,
        capabilities: &[],
        wait_killable: false,
        is_denied: true,
        scope: Scope {
            is_fast: true,
            ..Scope::default()
        },
    };
    weave(profile, &request).is_ok_and(|woven| !lets_library_call(&woven))
}

/// Whether a woven profile allows the calls that the preloaded library makes itself. A call that
/// the base forbids could kill the program.
fn lets_library_call(profile: &Map<String, Value>) -> bool {
    let rules = profile.get("syscalls").and_then(Value::as_array);
    let allows_by_default = is_open(profile);
    let is_let = |row: &Row| {
        let mut named = rules.into_iter().flatten().filter(|rule| {
            let names = rule.get("names").and_then(Value::as_array);
            names.is_some_and(|names| names.iter().any(|name| name == row.name))
        });
        match allows_by_default {
            // No rules but our notifications.
            true => named.all(|rule| rule["action"] == NOTIFY),
            false => named.any(|rule| {
                rule["action"].as_str().is_some_and(lets_pass)
                    && rule["args"] == json!([is_marked()])
            }),
        }
    };
    let mut rows = TABLE.iter().filter(|row| row.fast.is_some());
    rows.all(|row| row.bare_number().is_some() || is_let(row))
}

/// Weaves the table into `base`.
///
/// # Errors
///
/// Returns the reason, in words, if `base` is not a seccomp profile, or if it notifies another
/// agent: the kernel accepts one listener only.
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
    let was = scope_of(rules);
    let scope = request.scope;
    let mut woven: Vec<Value> = Vec::new();
    let mut kept: Vec<Value> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for rule in rules {
        let rule = rule
            .as_object()
            .ok_or("a rule of its \"syscalls\" is not an object")?;
        let Some(rule) = unwoven(rule, default_action, was)? else {
            continue;
        };
        let Some(rule) = for_format(&rule, request) else {
            continue;
        };
        let names = rule_names(&rule)?;
        let (ours, others) = split(&rule, &names, scope);
        named.extend(
            names
                .iter()
                .filter_map(|name| row(name, scope))
                .map(|row| row.name),
        );
        for rule in ours
            .into_iter()
            .flat_map(|row| rules_for(row, &rule, scope))
        {
            // In a base that was woven before, each condition of a notification is a rule: they all
            // become the same rules again.
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
        // Runtimes would only warn about a name that the libseccomp of this machine does not know.
        let unnamed =
            rows(scope).filter(|row| !named.contains(&row.name) && row.bare_number().is_none());
        woven.extend(unnamed.flat_map(|row| notifications(row, &Map::new(), scope)));
    }
    woven.push(json!({"names": IO_URING, "action": ERRNO, "errnoRet": libc::ENOSYS}));
    // Behind the notifications, because the first rule that matches wins.
    woven.extend(kept);

    let mut profile = base.clone();
    if request.format == Format::Oci {
        // Members of podman's format only; "archMap" stands for "architectures".
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

const ALREADY: &str = "it already notifies another agent of some calls (SCMP_ACT_NOTIFY), and the \
                       kernel accepts only one listener for a container: remove those rules first";

/// Sets the flags that the runtime accepts. With WAIT_KILLABLE_RECV, signals other than fatal ones
/// do not interrupt a call whose notification has been received.
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

/// The rule in the requested format. podman's rules may apply to some capabilities and
/// architectures only; the OCI format has no such conditions, so they are decided here. `None`: the
/// rule does not apply.
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

/// What a profile was woven for before.
fn scope_of(rules: &[Value]) -> Scope {
    let is_full = |rule: &Value| {
        let names = rule["names"].as_array().into_iter().flatten();
        let mut names = names.filter_map(Value::as_str);
        rule["action"] == NOTIFY && names.any(|name| row(name, Scope::LEAST).is_none())
    };
    Scope {
        is_fast: rules.iter().any(|rule| is_about_mark(&rule["args"])),
        permissions: match rules.iter().any(is_full) {
            true => Permissions::Full,
            false => Permissions::Owner,
        },
    }
}

fn row(name: &str, scope: Scope) -> Option<&'static Row> {
    rows(scope).find(|row| row.name == name)
}

/// The rows that have calls to notify, with the fast path or without.
fn rows(scope: Scope) -> impl Iterator<Item = &'static Row> {
    TABLE
        .iter()
        .filter(move |row| row.trap(scope) != Trap::Never)
}

/// Restores a rule of a base that was woven before, so that weaving twice has the same result as
/// weaving once. `None`: the base had no such rule. `was`: it was woven for the fast path.
fn unwoven(
    rule: &Map<String, Value>,
    default_action: &str,
    was: Scope,
) -> Result<Option<Map<String, Value>>, String> {
    let names = rule_names(rule)?;
    let rows: Option<Vec<&Row>> = names.iter().map(|name| row(name, was)).collect();
    let action = text(rule, "action");
    match (action, rows) {
        (Some(NOTIFY), None) => Err(ALREADY.to_owned()),
        // With such a default, the notifications were added by `weave`.
        (Some(NOTIFY), Some(_)) if lets_pass(default_action) => Ok(None),
        (Some(NOTIFY), Some(rows)) => {
            let mut rule = rule.clone();
            rule.insert("action".into(), ALLOW.into());
            if rows.iter().any(|row| row.trap(was) != Trap::Always) {
                rule.remove("args");
            }
            if rule.get("args").is_some_and(is_about_mark) {
                drop_last_comparison(&mut rule);
            }
            Ok(Some(rule))
        }
        (Some(action), Some(rows)) if lets_pass(action) && is_complement(&rows, rule, was) => {
            Ok(None)
        }
        _ => Ok(Some(rule.clone())),
    }
}

fn drop_last_comparison(rule: &mut Map<String, Value>) {
    let args = rule.get_mut("args").and_then(Value::as_array_mut);
    let is_empty = args.is_some_and(|args| args.pop().is_some() && args.is_empty());
    if is_empty {
        rule.remove("args");
    }
}

/// Whether the rule allows the calls of one row that do not trap.
fn is_complement(rows: &[&Row], rule: &Map<String, Value>, was: Scope) -> bool {
    let Some(args) = rule.get("args") else {
        return false;
    };
    is_about_mark(args)
        || matches!(rows, [row] if complement(row.trap(was)).iter().any(|ours| args == ours))
}

/// Whether the kernel executes calls with this action, logged or not.
fn lets_pass(action: &str) -> bool {
    matches!(action, ALLOW | "SCMP_ACT_LOG")
}

/// The names of a rule, split into rows that become notifications, and the others, which stay.
fn split(
    rule: &Map<String, Value>,
    names: &[String],
    scope: Scope,
) -> (Vec<&'static Row>, Vec<String>) {
    let allowed = text(rule, "action").is_some_and(lets_pass);
    let mut ours = Vec::new();
    let mut others = Vec::new();
    for name in names {
        if IO_URING.contains(&name.as_str()) {
            continue;
        }
        match row(name, scope) {
            Some(row) if allowed && !conflicts(row.trap(scope), rule) => ours.push(row),
            _ => others.push(name.clone()),
        }
    }
    (ours, others)
}

/// Whether both the rule and the row compare arguments. One rule of a filter cannot compare an
/// argument twice, so such a rule stays as it is: the known one (clone(2) without CLONE_NEW* flags)
/// allows none of the calls that the row traps.
fn conflicts(trap: Trap, rule: &Map<String, Value>) -> bool {
    let args = rule.get("args").and_then(Value::as_array);
    args.is_some_and(|args| !args.is_empty()) && trap != Trap::Always
}

/// The rules that replace `rule` for one row: they notify the calls that trap, and allow the rest.
fn rules_for(row: &Row, rule: &Map<String, Value>, scope: Scope) -> Vec<Value> {
    let mut rules = notifications(row, rule, scope);
    rules.extend(complement(row.trap(scope)).into_iter().map(|args| {
        let mut rule = with_names(row, rule);
        rule.insert("args".into(), args);
        Value::Object(rule)
    }));
    if scope.is_fast && row.fast.is_some() {
        let mut rule = with_names(row, rule);
        add_comparisons(&mut rule, vec![is_marked()]);
        if rule.get("args").is_some_and(is_about_mark) {
            rules.push(Value::Object(rule));
        }
    }
    rules
}

fn is_marked() -> Value {
    json!({"index": MARKED, "value": MAGIC, "op": "SCMP_CMP_EQ"})
}

/// Whether the last of these comparisons is that of the mark.
fn is_about_mark(args: &Value) -> bool {
    let last = args.as_array().and_then(|args| args.last());
    last.is_some_and(|last| *last == is_marked() || *last == Comparison::IsNotMarked.to_json())
}

fn with_names(row: &Row, rule: &Map<String, Value>) -> Map<String, Value> {
    let mut rule = rule.clone();
    rule.remove("name");
    rule.insert("names".into(), json!([row.name]));
    rule
}

fn notifications(row: &Row, rule: &Map<String, Value>, scope: Scope) -> Vec<Value> {
    let mut rule = with_names(row, rule);
    rule.insert("action".into(), NOTIFY.into());
    let narrowed = |comparisons: Vec<Comparison>| {
        let mut rule = rule.clone();
        let comparisons: Vec<Value> = comparisons.into_iter().map(Comparison::to_json).collect();
        add_comparisons(&mut rule, comparisons);
        Value::Object(rule)
    };
    notified(row, scope).into_iter().map(narrowed).collect()
}

/// Adds comparisons to a rule, except of arguments that it compares already: one rule of a filter
/// cannot compare an argument twice.
fn add_comparisons(rule: &mut Map<String, Value>, mut more: Vec<Value>) {
    let args = rule.get("args").and_then(Value::as_array);
    let mut all = args.cloned().unwrap_or_default();
    more.retain(|new| all.iter().all(|known| known["index"] != new["index"]));
    all.extend(more);
    if !all.is_empty() {
        rule.insert("args".into(), all.into());
    }
}

/// One comparison of an argument in a filter.
#[derive(Debug, Clone, Copy)]
enum Comparison {
    /// libseccomp compares 64 bits, so a value with other bits in the upper half traps, too: a −1
    /// that is sign-extended to 64 bits. The handler reads the lower half.
    IsNot {
        arg: u32,
        value: u32,
    },
    Masked {
        arg: u32,
        mask: u64,
        bits: u64,
    },
    /// The call is not one that the preloaded library makes itself.
    IsNotMarked,
}

/// The argument with the mark, which no such call uses.
const MARKED: u32 = 5;

impl Comparison {
    fn to_json(self) -> Value {
        match self {
            Self::IsNot { arg, value } => {
                json!({"index": arg, "value": value, "op": "SCMP_CMP_NE"})
            }
            Self::Masked { arg, mask, bits } => masked(arg, mask, bits),
            Self::IsNotMarked => json!({"index": MARKED, "value": MAGIC, "op": "SCMP_CMP_NE"}),
        }
    }
}

/// The conditions of a row: a call is notified if all comparisons of one of them hold.
fn notified(row: &Row, scope: Scope) -> Vec<Vec<Comparison>> {
    let mark = row.fast.filter(|_| scope.is_fast);
    let mark = mark.map(|_| Comparison::IsNotMarked);
    match comparisons(row.trap(scope)) {
        all if all.is_empty() => vec![mark.into_iter().collect()],
        some => some
            .into_iter()
            .map(|comparison| [comparison].into_iter().chain(mark).collect())
            .collect(),
    }
}

/// The comparisons for a trap: a call traps if one of them holds. Empty if all calls trap.
fn comparisons(trap: Trap) -> Vec<Comparison> {
    match trap {
        // Rows that never trap are not asked (`rows`).
        Trap::Always | Trap::Never => Vec::new(),
        Trap::If(condition) => comparisons_for(condition),
        Trap::IfEither(one, other) => [one, other].map(comparisons_for).concat(),
    }
}

fn comparisons_for(condition: Condition) -> Vec<Comparison> {
    match condition {
        Condition::IsNot { arg, value } => vec![Comparison::IsNot { arg, value }],
        Condition::Masked { arg, mask, bits } => vec![Comparison::Masked { arg, mask, bits }],
        // Each comparison also excludes the bits of those before it, so no call matches two rules.
        Condition::HasAny { arg, bits } => each_bit(bits)
            .map(|bit| Comparison::Masked {
                arg,
                mask: bits & (bit | (bit - 1)),
                bits: bit,
            })
            .collect(),
    }
}

/// The comparisons of the rules that match the calls that do not trap: one list for each rule.
fn complement(trap: Trap) -> Vec<Value> {
    let rules = match trap {
        Trap::Always | Trap::Never => Vec::new(),
        Trap::If(condition) => opposites(condition)
            .into_iter()
            .map(|one| vec![one])
            .collect(),
        Trap::IfEither(one, other) => opposites(one)
            .into_iter()
            .flat_map(|one| {
                let others = opposites(other).into_iter();
                others.filter_map(move |other| both(one, other))
            })
            .collect(),
    };
    rules
        .into_iter()
        .map(|rule| rule.into_iter().map(Opposite::to_json).collect())
        .collect()
}

/// The argument has, of the bits in `mask`, exactly `bits`; all 64 bits are compared if there is no
/// mask.
#[derive(Debug, Clone, Copy)]
struct Opposite {
    arg: u32,
    mask: Option<u64>,
    bits: u64,
}

impl Opposite {
    fn to_json(self) -> Value {
        match self.mask {
            Some(mask) => masked(self.arg, mask, self.bits),
            None => json!({"index": self.arg, "value": self.bits, "op": "SCMP_CMP_EQ"}),
        }
    }
}

/// The condition does not hold if one of these does.
fn opposites(condition: Condition) -> Vec<Opposite> {
    match condition {
        Condition::IsNot { arg, value } => vec![Opposite {
            arg,
            mask: None,
            bits: value.into(),
        }],
        Condition::HasAny { arg, bits } => vec![Opposite {
            arg,
            mask: Some(bits),
            bits: 0,
        }],
        // One for each bit in which the argument may differ.
        Condition::Masked { arg, mask, bits } => each_bit(mask)
            .map(|bit| Opposite {
                arg,
                mask: Some(bit),
                bits: !bits & bit,
            })
            .collect(),
    }
}

/// The comparisons for both: one, if they are of one argument, which a rule cannot compare twice.
/// `None`: they contradict each other.
fn both(one: Opposite, other: Opposite) -> Option<Vec<Opposite>> {
    match (one.mask, other.mask) {
        (Some(mask), Some(more)) if one.arg == other.arg => {
            let common = mask & more;
            let agrees = one.bits & common == other.bits & common;
            agrees.then(|| {
                vec![Opposite {
                    arg: one.arg,
                    mask: Some(mask | more),
                    bits: one.bits | other.bits,
                }]
            })
        }
        _ => Some(vec![one, other]),
    }
}

fn each_bit(bits: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS)
        .map(|shift| 1 << shift)
        .filter(move |bit| bits & bit != 0)
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

/// The name of this machine's architecture in podman's `arches`.
fn go_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

#[cfg(test)]
mod tests;
