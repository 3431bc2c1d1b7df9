//! `--user`: the user and groups of the command.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::error::Error;
use crate::linux::accounts::{Account, accounts, groups, groups_of};
use crate::linux::name_service;
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
            Some(uid) if group.is_some() => (uid, None),
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
            (Some(account), None) => names.groups_of(account)?,
            _ => Vec::new(),
        };
        Ok(Self {
            uid,
            gid: gid.or(account.map(|account| account.gid)).unwrap_or(0),
            groups,
        })
    }

    pub(super) fn of(user: ProcessUser) -> Self {
        Self {
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.uid == 0
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
            Self::Host => looked_up(name, name_service::user_by_name(name)),
            Self::Rootfs(rootfs) => Ok(accounts(rootfs).find(|account| account.name == name)),
        }
    }

    fn by_uid(&self, uid: u32) -> Result<Option<Account>, Error> {
        match self {
            Self::Host => looked_up(&uid.to_string(), name_service::user_by_uid(uid)),
            Self::Rootfs(rootfs) => Ok(accounts(rootfs).find(|account| account.uid == uid)),
        }
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Error> {
        match self {
            Self::Host => looked_up(name, name_service::group(name)),
            Self::Rootfs(rootfs) => Ok(groups(rootfs)
                .find(|group| group.name == name)
                .map(|group| group.gid)),
        }
    }

    /// All groups of the user, the primary one first, as initgroups(3) sets them.
    fn groups_of(&self, account: &Account) -> Result<Vec<u32>, Error> {
        let name = &account.name;
        let others = match self {
            Self::Host => looked_up(name, name_service::memberships(name))?,
            Self::Rootfs(rootfs) => groups_of(rootfs, name).collect(),
        };
        let mut gids = vec![account.gid];
        for gid in others {
            if !gids.contains(&gid) {
                gids.push(gid);
            }
        }
        Ok(gids)
    }
}

/// Tells a failing name service from an unknown name.
fn looked_up<T>(name: &str, found: io::Result<T>) -> Result<T, Error> {
    found.map_err(|source| Error::NameService {
        name: name.to_owned(),
        source,
    })
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
