//! Rules that hold for every sequence of calls. tests/programs/probe compares single answers with
//! the kernel's.

use nix::errno::Errno;

use super::*;

const ALL: u64 = (1 << 41) - 1;
const POOL: [u32; 6] = [0, 1, 33, 999, 70_000, 4_294_967_294];

fn uid(id: u32) -> EmulatedUid {
    EmulatedUid::new(id).unwrap()
}

fn gid(id: u32) -> EmulatedGid {
    EmulatedGid::new(id).unwrap()
}

fn kernel() -> Capabilities {
    Capabilities {
        permitted: ALL,
        effective: ALL,
        ..Capabilities::default()
    }
}

fn root() -> Credentials {
    Credentials::initial(EmulatedUid::ROOT, EmulatedGid::ROOT, Vec::new())
}

fn change(
    credentials: &Credentials,
    change: impl FnOnce(&mut Change) -> Result<(), Errno>,
) -> Result<Credentials, Errno> {
    let mut now = Change::of(credentials.clone(), || Ok(kernel()))?;
    change(&mut now)?;
    Ok(now.finish())
}

fn sets(credentials: &Credentials) -> Capabilities {
    credentials.capabilities.unwrap_or_else(kernel)
}

fn of<T: Id>(ids: Ids<T>) -> [u32; 4] {
    [ids.real, ids.effective, ids.saved, ids.fs].map(Id::as_raw)
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end
    }

    fn id(&mut self) -> u32 {
        POOL[self.below(POOL.len())]
    }

    fn user(&mut self) -> Option<EmulatedUid> {
        let id = self.id();
        (self.below(3) > 0).then_some(uid(id))
    }

    fn group(&mut self) -> Option<EmulatedGid> {
        let id = self.id();
        (self.below(3) > 0).then_some(gid(id))
    }

    fn step(&mut self, now: &mut Change) -> Result<(), Errno> {
        let bounding = ALL;
        match self.below(14) {
            0 => now.setuid(uid(self.id())),
            1 => now.setgid(gid(self.id())),
            2 => now.setreuid(self.user(), self.user()),
            3 => now.setregid(self.group(), self.group()),
            4 | 5 => now.setresuid([self.user(), self.user(), self.user()]),
            6 => now.setresgid([self.group(), self.group(), self.group()]),
            7 => {
                now.setfsuid(self.user());
                Ok(())
            }
            8 => {
                now.setfsgid(self.group());
                Ok(())
            }
            9 => now.set_keep_capabilities(self.below(2) == 0),
            10 => now.set_securebits(1 << self.below(8)),
            11 => {
                let set = ALL >> self.below(41);
                let new = Capabilities {
                    permitted: set,
                    effective: set & (self.0 >> 7),
                    inheritable: set & (self.0 >> 3),
                    ambient: 0,
                };
                now.capset(new, bounding)
            }
            12 => now.raise_ambient(1 << self.below(41)),
            _ => {
                now.lower_ambient(1 << self.below(41));
                Ok(())
            }
        }
    }
}

/// Runs `check` on every step of many random walks.
fn walk(check: impl Fn(&Credentials, &Credentials)) {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut now = root();
        for _ in 0..60 {
            if let Ok(next) = change(&now, |change| dice.step(change)) {
                check(&now, &next);
                now = next;
            }
        }
    }
}

#[test]
fn sets_of_capabilities_stay_within_each_other() {
    walk(|_, now| {
        let sets = sets(now);
        assert_eq!(sets.effective & !sets.permitted, 0, "{now:?}");
        assert_eq!(
            sets.ambient & !(sets.permitted & sets.inheritable),
            0,
            "{now:?}"
        );
    });
}

#[test]
fn nobody_gains_permitted_capabilities_or_foreign_ids_without_privilege() {
    walk(|before, now| {
        let (old, new) = (sets(before), sets(now));
        assert_eq!(new.permitted & !old.permitted, 0);
        if old.effective & capability::SETUID == 0 {
            let known = of(before.uid);
            assert!(of(now.uid).iter().all(|id| known.contains(id)));
        }
        if old.effective & capability::SETGID == 0 {
            let known = of(before.gid);
            assert!(of(now.gid).iter().all(|id| known.contains(id)));
        }
    });
}

#[test]
fn what_survives_exec_is_not_changed_by_it() {
    walk(|_, now| {
        let circumstances = Circumstances {
            kernel: kernel(),
            bounding: ALL,
            no_new_privs: false,
        };
        let after = now.after_exec(&Program::default(), &circumstances);
        if now.survive_exec() {
            assert_eq!(after, *now);
        }
        assert_eq!(after.uid.saved, after.uid.effective);
        assert_eq!(after.uid.fs, after.uid.effective);
        assert_eq!(after.securebits & securebits::KEEP_CAPS, 0);
    });
}

#[test]
fn leaving_root_for_good_takes_the_capabilities_and_keepcaps_keeps_the_permitted_ones() {
    let user = change(&root(), |now| now.setuid(uid(999))).unwrap();
    assert_eq!(of(user.uid), [999; 4]);
    assert_eq!(sets(&user).permitted, 0);
    assert_eq!(change(&user, |now| now.setuid(uid(0))), Err(Errno::EPERM));

    let kept = change(&root(), |now| {
        now.set_keep_capabilities(true)?;
        now.setuid(uid(999))
    });
    assert_eq!(sets(&kept.clone().unwrap()).permitted, ALL);
    assert_eq!(sets(&kept.unwrap()).effective, 0);
}

#[test]
fn going_and_coming_back_leaves_no_trace() {
    let away = change(&root(), |now| now.setreuid(None, Some(uid(33)))).unwrap();
    assert_eq!(of(away.uid), [0, 33, 33, 33]);
    assert_eq!(sets(&away).effective, 0);
    let back = change(&away, |now| now.setreuid(None, Some(uid(0)))).unwrap();
    assert_eq!(sets(&back), kernel());
}

#[test]
fn a_set_user_id_program_gives_its_owner_and_not_under_no_new_privs() {
    let user = change(&root(), |now| {
        now.setgid(gid(999))?;
        now.setuid(uid(999))
    })
    .unwrap();
    let program = Program {
        set_uid: Some(uid(0)),
        ..Program::default()
    };
    let now = Circumstances {
        kernel: kernel(),
        bounding: ALL,
        no_new_privs: false,
    };
    let after = user.after_exec(&program, &now);
    assert_eq!(of(after.uid), [999, 0, 0, 0]);
    assert_eq!(after.capabilities, None);
    let refused = Circumstances {
        no_new_privs: true,
        ..now
    };
    assert_eq!(user.after_exec(&program, &refused), user);
}

#[test]
fn without_cap_chown_an_owner_may_only_keep_the_uid_and_give_its_own_groups() {
    let user = Subject {
        uid: uid(7),
        gid: gid(8),
        groups: vec![gid(20)],
        capabilities: 0,
    };
    let change = |uid, gid| OwnerChange { uid, gid };
    let own = (uid(7), gid(9));
    assert!(user.may_change_owner(own, change(None, None)));
    assert!(user.may_change_owner(own, change(Some(uid(7)), Some(gid(8)))));
    assert!(user.may_change_owner(own, change(None, Some(gid(9)))));
    assert!(user.may_change_owner(own, change(None, Some(gid(20)))));
    assert!(!user.may_change_owner(own, change(Some(uid(0)), None)));
    assert!(!user.may_change_owner(own, change(None, Some(gid(10)))));
    assert!(!user.may_change_owner((uid(1), gid(8)), change(None, Some(gid(8)))));
    let root = Subject {
        capabilities: capability::CHOWN,
        ..user
    };
    assert!(root.may_change_owner((uid(1), gid(1)), change(Some(uid(2)), None)));
}

#[test]
fn the_first_class_that_fits_decides_what_a_mode_allows() {
    let user = Subject {
        uid: uid(7),
        gid: gid(8),
        groups: Vec::new(),
        capabilities: 0,
    };
    let file = |owner, group, mode| FileMode {
        uid: uid(owner),
        gid: gid(group),
        mode: libc::S_IFREG | mode,
    };
    assert!(user.may(Access::READ, file(7, 1, 0o400)));
    assert!(!user.may(Access::READ, file(7, 8, 0o044)));
    assert!(user.may(Access::WRITE, file(1, 8, 0o020)));
    assert!(!user.may(Access::WRITE, file(1, 8, 0o602)));
    assert!(user.may(Access::READ, file(1, 1, 0o004)));
    let root = Subject {
        capabilities: capability::DAC_OVERRIDE,
        ..user
    };
    assert!(root.may(Access::READ_WRITE, file(1, 1, 0)));
    assert!(!root.may(Access::EXECUTE, file(1, 1, 0o666)));
    assert!(root.may(Access::EXECUTE, file(1, 1, 0o100)));
}

#[test]
fn minus_one_is_no_id_and_every_other_number_is() {
    assert_eq!(EmulatedUid::new(u32::MAX), None);
    assert_eq!(uid(u32::MAX - 1).as_raw(), 4_294_967_294);
}

#[test]
fn file_capabilities_are_read_from_their_attribute() {
    let bytes = [1u32 | 0x0200_0000, 0x2000, 0, 1, 0];
    let bytes: Vec<u8> = bytes.into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(
        FileCapabilities::decode(&bytes),
        Some(FileCapabilities {
            permitted: 1 << 32 | 0x2000,
            inheritable: 0,
            effective: true,
        })
    );
    for length in 0..bytes.len() {
        assert_eq!(FileCapabilities::decode(&bytes[..length]), None);
    }
}
