//! The kernel's settings, which are read to name the cause of a failure: for `check`, and for the
//! errors of whatever else fails on such a host.

use std::fs;

use nix::errno::Errno;

use crate::linux::procfs::Status;

/// The value of a setting in /proc/sys. Returns `None` if the kernel does not have it.
fn number(name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Why a user namespace cannot be created or used, and what to change.
pub(crate) fn blame_for_namespace(stage: &str, errno: Errno) -> (String, String) {
    let said = format!("{stage}: {}", errno.desc());
    let set = |setting: &str, value: &str| {
        format!("as root: sysctl -w {setting}={value}, and the same line in /etc/sysctl.d")
    };
    let limit = number("user.max_user_namespaces");
    if let (Errno::ENOSPC | Errno::EUSERS, Some(limit)) = (errno, limit) {
        let reason = format!("{said}: user.max_user_namespaces is {limit}");
        if limit == 0 {
            return (reason, set("user.max_user_namespaces", "15000"));
        }
        let change =
            "raise it, or end processes that hold namespaces; they can be nested 32 levels deep";
        return (reason, change.to_owned());
    }
    for (setting, bad, good) in [
        ("kernel.unprivileged_userns_clone", 0, "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", 1, "0"),
    ] {
        if number(setting) == Some(bad) {
            let mut change = set(setting, good);
            if setting.contains("apparmor") {
                change += "; or an AppArmor profile for this program with `userns,` in it";
            }
            return (format!("{said}: {setting} is {bad}"), change);
        }
    }
    // A filter can answer with any errno; these are the usual ones.
    let status = Status::of("/proc/self").ok();
    let filters = status.and_then(|status| status.filters()).unwrap_or(0);
    if filters > 0 && matches!(errno, Errno::EPERM | Errno::ENOSYS | Errno::EACCES) {
        let change = "run this outside of the container or sandbox whose filter it is, or let that \
                      allow unshare, clone and clone3 (podman, Docker: --security-opt \
                      seccomp=unconfined)";
        let reason = format!("{said}: a seccomp filter of this process forbids it");
        return (reason, change.to_owned());
    }
    let change = "no setting forbids it, but a security module, a chroot or a kernel without \
                  CONFIG_USER_NS does";
    (said, change.to_owned())
}

/// Why another process's memory cannot be read, and what to change.
pub(crate) fn blame_for_memory(errno: Errno) -> (String, String) {
    let said = format!("process_vm_readv: {}", errno.desc());
    match number("kernel.yama.ptrace_scope") {
        Some(scope @ 3..) => (
            format!("{said}: kernel.yama.ptrace_scope is {scope}"),
            "as root: kernel.yama.ptrace_scope=2 or less in /etc/sysctl.d, and reboot: 3 cannot be \
             lowered at run time"
                .to_owned(),
        ),
        _ => (
            said,
            "a security module (SELinux: deny_ptrace) or a filter forbids it, or \
             CONFIG_CROSS_MEMORY_ATTACH is off"
                .to_owned(),
        ),
    }
}
