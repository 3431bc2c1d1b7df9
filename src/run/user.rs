//! `--user`: the user and groups of the command.

use std::ffi::CString;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgroups, setresgid, setresuid};

use crate::error::Error;
use crate::linux::accounts::{Account, accounts, groups};
use crate::wire::handover::ProcessUser;

/// The ids of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Login {
    /// Looks up `UID[:GID]`, where each may be a name. If a group is given, it is the only one.
    pub(super) fn find(requested: &str, names: &Names) -> Result<Self, Error> {
        let (user, group) = match requested.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (requested, None),
        };
        let (uid, account) = match number(user) {
            Some(uid) => (uid, names.by_uid(uid)?),
            None => {
                let account = names.by_name(user)?.ok_or_else(|| Error::UnknownUser {
                    name: user.to_owned(),
                    place: names.to_string(),
                })?;
                (account.uid, Some(account))
            }
        };
        let gid = match group {
            None => None,
            Some(group) => Some(match number(group) {
                Some(gid) => gid,
                None => names.group(group)?.ok_or_else(|| Error::UnknownGroup {
                    name: group.to_owned(),
                    place: names.to_string(),
                })?,
            }),
        };
        let groups = match (&account, gid) {
            (Some(account), None) => names.groups_of(account),
            _ => Vec::new(),
        };
        Ok(Self {
            uid,
            gid: gid.or(account.map(|account| account.gid)).unwrap_or(0),
            groups,
        })
    }

    pub(super) fn to_process_user(&self) -> ProcessUser {
        ProcessUser {
            uid: self.uid,
            gid: self.gid,
            additional_gids: self.groups.clone(),
        }
    }

    /// Sets these ids for this process, whose calls are already emulated.
    pub(super) fn become_it(&self) -> Result<(), Error> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)
            .and_then(|()| setresgid(gid, gid, gid))
            .and_then(|()| setresuid(uid, uid, uid))
            .map_err(|errno| match errno {
                Errno::ENOSYS => Error::NoSupervisor,
                errno => Error::doing("taking the ids of --user", errno),
            })
    }
}

/// A numeric id; −1 is not one.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// Where names are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names<'a> {
    /// The host's name service.
    Host,
    /// etc/passwd and etc/group of a root file system.
    Rootfs(&'a Path),
}

impl std::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("this host"),
            Self::Rootfs(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Names<'_> {
    fn by_name(&self, name: &str) -> Result<Option<Account>, Error> {
        match self {
            Self::Host => looked_up(name, User::from_name(name)).map(|user| user.map(of_host)),
            Self::Rootfs(rootfs) => Ok(accounts(rootfs).find(|account| account.name == name)),
        }
    }

    fn by_uid(&self, uid: u32) -> Result<Option<Account>, Error> {
        match self {
            Self::Host => looked_up(&uid.to_string(), User::from_uid(Uid::from_raw(uid)))
                .map(|user| user.map(of_host)),
            Self::Rootfs(rootfs) => Ok(accounts(rootfs).find(|account| account.uid == uid)),
        }
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Error> {
        match self {
            Self::Host => looked_up(name, Group::from_name(name))
                .map(|group| group.map(|group| group.gid.as_raw())),
            Self::Rootfs(rootfs) => Ok(groups(rootfs)
                .find(|group| group.name == name)
                .map(|group| group.gid)),
        }
    }

    /// All groups of the user, the primary one included, as initgroups(3) sets them.
    fn groups_of(&self, account: &Account) -> Vec<u32> {
        let mut gids = vec![account.gid];
        match self {
            Self::Host => {
                let name = CString::new(account.name.as_str()).unwrap_or_default();
                let found = getgrouplist(&name, Gid::from_raw(account.gid)).unwrap_or_default();
                gids.extend(found.into_iter().map(Gid::as_raw));
            }
            Self::Rootfs(rootfs) => gids.extend(
                groups(rootfs)
                    .filter(|group| group.members.contains(&account.name))
                    .map(|group| group.gid),
            ),
        }
        let first = account.gid;
        let mut seen = Vec::new();
        gids.retain(|gid| {
            !seen.contains(gid) && {
                seen.push(*gid);
                true
            }
        });
        debug_assert_eq!(gids.first(), Some(&first));
        gids
    }
}

/// Tells a failing name service from an unknown name.
fn looked_up<T>(name: &str, found: nix::Result<Option<T>>) -> Result<Option<T>, Error> {
    found.map_err(|errno| Error::NameService {
        name: name.to_owned(),
        errno,
    })
}

fn of_host(user: User) -> Account {
    Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(requested: &str) -> Result<Login, Error> {
        Login::find(requested, &Names::Host)
    }

    #[test]
    fn ids_and_names_are_found() {
        let root = find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        let odd = find("123456789:987654321").unwrap();
        let (uid, gid) = (123_456_789, 987_654_321);
        let groups = vec![];
        assert_eq!(odd, Login { uid, gid, groups });
        let gid = |requested| find(requested).unwrap().gid;
        assert_eq!(gid("123456789"), 0);
        assert_eq!(gid("123456789:root"), 0);
    }

    #[test]
    fn who_is_not_known_is_named() {
        let told = |requested| find(requested).unwrap_err().to_string();
        assert!(told("no such user").contains("no such user"));
        assert!(told("root:no such group").contains("no such group"));
        assert!(told("4294967295").contains("4294967295"));
        assert!(told("").contains("user"));
    }

    #[test]
    fn a_root_file_system_has_names_of_its_own_and_its_links_lead_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let names = Names::Rootfs(directory.path());
        std::os::unix::fs::symlink("/etc/passwd", etc.join("group")).unwrap();
        std::fs::write(
            etc.join("passwd"),
            "root:x:0:0::/:\nweb:x:70000:5:a:/:\nnonsense\n",
        )
        .unwrap();
        let web = Login::find("web", &names).unwrap();
        assert_eq!((web.uid, web.gid, web.groups), (70000, 5, vec![5]));
        // The absolute link leads to the root file system's own /etc/passwd, which has no groups.
        assert!(Login::find("web:mail", &names).is_err());
        std::fs::remove_file(etc.join("group")).unwrap();
        std::fs::write(etc.join("group"), "five:x:5:\nmail:x:8:root,web\n").unwrap();
        assert_eq!(Login::find("70000", &names).unwrap().groups, [5, 8]);
        assert_eq!(Login::find("web:mail", &names).unwrap().gid, 8);
        assert!(Login::find("daemon", &names).is_err());
        // Opening a fifo must not block.
        std::fs::remove_file(etc.join("passwd")).unwrap();
        nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(Login::find("web", &names).is_err());
    }
}
