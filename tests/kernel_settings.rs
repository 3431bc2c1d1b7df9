//! Settings of the kernel that forbid what subuidless needs, where it has them: Debian's has all
//! (`scripts/test --vm -- kernel_settings`). In a file of its own, since they are everybody's.

#![allow(
    clippy::print_stderr,
    reason = "what this kernel does not have is told"
)]

mod common;

use std::fs;

use common::{Place, lock, run, small_rootfs};

/// Runs `then` with a setting, which has its value again afterwards.
fn with(setting: &str, value: &str, then: impl FnOnce()) {
    struct Restored(String, Vec<u8>);
    impl Drop for Restored {
        fn drop(&mut self) {
            let _ = fs::write(&self.0, &self.1);
        }
    }
    let file = format!("/proc/sys/{}", setting.replace('.', "/"));
    let Ok(before) = fs::read(&file) else {
        eprintln!("this kernel has no {setting}: not tried");
        return;
    };
    let _restored = Restored(file.clone(), before);
    fs::write(&file, value).expect("a setting of the kernel");
    then();
}

#[test]
fn what_this_kernel_forbids_is_named_and_what_it_restricts_works() {
    let _alone = lock();
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let rootfs = rootfs.to_str().expect("UTF-8");
    for (setting, value) in [
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ] {
        with(setting, value, || {
            let reason = format!("{setting} is {value}");
            let found = run(&mut place.subuidless(["check"]));
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            assert!(found.contains(&reason), "{found}");
            for words in [&["run"][..], &["run", "--rootfs", rootfs], &["fakeroot"]] {
                let arguments = [words, &["--", "true"]].concat();
                let error = run(&mut place.subuidless(arguments)).error();
                assert!(error.contains(&reason), "{error}");
            }
        });
    }
    let script = "cd /tmp; ln -s x l; : >f; chown -h 5:6 l f; stat -c %u:%g l f; rm l f";
    // Not 3, which only a boot ends: tests/check.rs imitates it.
    for scope in ["0", "1", "2"] {
        with("kernel.yama.ptrace_scope", scope, || {
            run(&mut place.subuidless(["check", "--for", "run"])).ok();
            for words in [&["run"][..], &["run", "--rootfs", rootfs]] {
                let arguments = [words, &["--", "sh", "-euc", script]].concat();
                let ran = run(&mut place.subuidless(arguments));
                assert_eq!(ran.ok(), "5:6\n5:6\n", "{scope}");
            }
        });
    }
}
