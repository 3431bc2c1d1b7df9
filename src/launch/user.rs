//! `--user`: who the command is to be.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgroups, setresgid, setresuid};

use crate::error::Error;

/// Ids for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Login {
    /// From `UID[:GID]`, where each may be a name that this host knows. With a group there are no supplementary ones.
    pub(crate) fn find(wish: &str) -> Result<Self, Error> {
        let (user, group) = match wish.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (wish, None),
        };
        let (uid, known) = match number(user) {
            Some(uid) => (uid, look_up(user, User::from_uid(Uid::from_raw(uid)))?),
            None => {
                let known = look_up(user, User::from_name(user))?;
                let unknown = || Error::UnknownUser {
                    name: user.to_owned(),
                };
                let user = known.ok_or_else(unknown)?;
                (user.uid.as_raw(), Some(user))
            }
        };
        let gid = group.map(find_group).transpose()?;
        let groups = match (&known, gid) {
            (Some(user), None) => groups_of(user),
            _ => Vec::new(),
        };
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: gid
                .or(known.map(|user| user.gid))
                .unwrap_or(Gid::from_raw(0)),
            groups,
        })
    }

    /// Takes these ids; the calls are emulated by now.
    pub(crate) fn become_it(&self) -> Result<(), Error> {
        setgroups(&self.groups)
            .and_then(|()| setresgid(self.gid, self.gid, self.gid))
            .and_then(|()| setresuid(self.uid, self.uid, self.uid))
            .map_err(|errno| match errno {
                Errno::ENOSYS => Error::NoSupervisor,
                errno => Error::System {
                    what: "taking the ids of --user",
                    errno,
                },
            })
    }
}

/// −1 is nobody's.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn find_group(name: &str) -> Result<Gid, Error> {
    if let Some(gid) = number(name) {
        return Ok(Gid::from_raw(gid));
    }
    match look_up(name, Group::from_name(name))? {
        Some(group) => Ok(group.gid),
        None => Err(Error::UnknownGroup {
            name: name.to_owned(),
        }),
    }
}

/// A name service that does not answer is not one that knows nobody.
fn look_up<T>(name: &str, found: nix::Result<Option<T>>) -> Result<Option<T>, Error> {
    found.map_err(|errno| Error::NameService {
        name: name.to_owned(),
        errno,
    })
}

fn groups_of(user: &User) -> Vec<Gid> {
    let name = CString::new(user.name.as_str()).unwrap_or_default();
    getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_found() {
        let root = Login::find("root").unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        let odd = Login::find("123456789:987654321").unwrap();
        assert_eq!(
            odd,
            Login {
                uid: Uid::from_raw(123_456_789),
                gid: Gid::from_raw(987_654_321),
                groups: vec![],
            }
        );
        let gid = |wish| Login::find(wish).unwrap().gid.as_raw();
        assert_eq!(gid("123456789"), 0);
        assert_eq!(gid("123456789:root"), 0);
    }

    #[test]
    fn who_is_not_known_is_named() {
        let told = |wish| Login::find(wish).unwrap_err().to_string();
        assert!(told("no such user").contains("no such user"));
        assert!(told("root:no such group").contains("no such group"));
        assert!(told("4294967295").contains("4294967295"));
        assert!(told("").contains("user"));
    }
}
