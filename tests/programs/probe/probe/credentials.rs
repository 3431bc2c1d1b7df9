//! The caller's credentials: the calls that change them, and the state afterwards.

use super::Probe;
use crate::print;
use crate::sys::{self, Arg, Everywhere, Place, Syscall, calls};

/// An option of prctl(2), and its name.
#[derive(Clone, Copy)]
pub(crate) struct Prctl(i64, &'static str);

macro_rules! prctl_options {
    ($($constant:ident $number:literal;)*) => {$(
        pub(crate) const $constant: Prctl = Prctl($number, stringify!($constant));
    )*};
}

prctl_options! {
    PR_SET_DUMPABLE 4;
    PR_GET_KEEPCAPS 7;
    PR_SET_KEEPCAPS 8;
    PR_CAPBSET_READ 23;
    PR_CAPBSET_DROP 24;
    PR_GET_SECUREBITS 27;
    PR_SET_SECUREBITS 28;
    PR_SET_NO_NEW_PRIVS 38;
    PR_CAP_AMBIENT 47;
}

/// The second argument of `PR_CAP_AMBIENT`.
pub(crate) const AMBIENT_IS_SET: i64 = 1;
pub(crate) const AMBIENT_RAISE: i64 = 2;
pub(crate) const AMBIENT_LOWER: i64 = 3;
pub(crate) const AMBIENT_CLEAR_ALL: i64 = 4;

pub(crate) const CAP_KILL: u64 = 1 << 5;
pub(crate) const CAP_SETGID: u64 = 1 << 6;
pub(crate) const CAP_SETUID: u64 = 1 << 7;
pub(crate) const CAP_SETPCAP: u64 = 1 << 8;
/// A capability that the container does not have.
pub(crate) const CAP_SYS_TIME: u64 = 1 << 25;

pub(crate) const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// The sets of capabilities for capset(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

impl Sets {
    /// The two `struct __user_cap_data_struct` of version 3.
    pub(crate) fn words(self) -> Vec<u32> {
        let halves = [0, 32].map(|shift| {
            [self.effective, self.permitted, self.inheritable].map(|set| {
                u32::try_from(set >> shift & 0xffff_ffff).expect("half of a set has 32 bits")
            })
        });
        halves.concat()
    }

    fn from_words(words: &[u32]) -> Sets {
        let set = |at: usize| u64::from(words[at]) | u64::from(words[at + 3]) << 32;
        Sets {
            effective: set(0),
            permitted: set(1),
            inheritable: set(2),
        }
    }
}

/// struct __user_cap_header_struct.
fn header(version: u32, pid: i32) -> Arg {
    Arg::Words(vec![version, pid.cast_unsigned()], Place::Heap)
}

impl Probe {
    /// The caller's capabilities.
    pub(crate) fn own_capabilities(&mut self) -> Sets {
        self.capabilities(0).unwrap_or_default()
    }

    /// Makes a call whose arguments are ids, and prints the caller's credentials.
    pub(crate) fn set(&mut self, syscall: Syscall, ids: &[u32]) {
        let args: Vec<Arg> = ids.iter().copied().map(Arg::Id).collect();
        self.call(syscall, &args);
        self.state();
    }

    pub(crate) fn setgroups(&mut self, groups: &[u32]) {
        let length = i64::try_from(groups.len()).expect("a short list");
        let list = Arg::Ids(groups.to_vec(), Place::Heap);
        self.call(calls::SETGROUPS, &[Arg::Number(length), list]);
        self.state();
    }

    /// Changes to these groups and ids, and prints nothing. The caller must be root.
    pub(crate) fn somebody(&mut self, groups: &[u32], gids: [u32; 3], uids: [u32; 3]) {
        let length = i64::try_from(groups.len()).expect("a short list");
        let list = Arg::Ids(groups.to_vec(), Place::Heap);
        self.quiet(calls::SETGROUPS, &[Arg::Number(length), list]);
        self.quietly_set(calls::SETRESGID, &gids);
        self.quietly_set(calls::SETRESUID, &uids);
    }

    /// Lets libc make the call in every thread.
    pub(crate) fn everywhere(&mut self, call: &Everywhere) {
        let result = match sys::everywhere(call) {
            Ok(()) => "0".to_owned(),
            Err(errno) => print::errno(errno),
        };
        self.say(&format!("libc: {call:?} = {result}"));
    }

    pub(crate) fn prctl(&mut self, option: Prctl, rest: &[i64]) {
        let option = Arg::Named(option.0, option.1);
        let rest = rest.iter().copied().map(Arg::Number);
        let args: Vec<Arg> = std::iter::once(option).chain(rest).collect();
        self.call(calls::PRCTL, &args);
    }

    fn ask(&mut self, option: Prctl, rest: &[i64]) -> String {
        let rest = rest.iter().copied().map(Arg::Number);
        let args: Vec<Arg> = std::iter::once(Arg::Number(option.0)).chain(rest).collect();
        number(self.quiet(calls::PRCTL, &args).result)
    }

    pub(crate) fn capset(&mut self, sets: Sets) {
        let words = Arg::Words(sets.words(), Place::Heap);
        let answer = self.quiet(calls::CAPSET, &[header(CAPABILITY_VERSION_3, 0), words]);
        self.say(&format!(
            "capset({}) = {}",
            shown(sets),
            number(answer.result)
        ));
        self.state();
    }

    /// The capabilities of `pid`; of the caller, if it is 0.
    pub(crate) fn capabilities(&mut self, pid: i32) -> Result<Sets, i32> {
        let buffer = Arg::Words(vec![0; 6], Place::Heap);
        let answer = self.quiet(calls::CAPGET, &[header(CAPABILITY_VERSION_3, pid), buffer]);
        answer.result.map(|_| Sets::from_words(&answer.words(1)))
    }

    /// Prints all credentials of the caller.
    pub(crate) fn state(&mut self) {
        let text = self.credentials();
        self.say(&format!("  {text}"));
    }

    /// Prints the caller's ambient set.
    pub(crate) fn ambient(&mut self) {
        let mut set = 0_u64;
        for capability in 0..41 {
            let args = [PR_CAP_AMBIENT.0, AMBIENT_IS_SET, capability].map(Arg::Number);
            let answer = self.quiet(calls::PRCTL, &args);
            set |= u64::from(answer.result == Ok(1)) << capability;
        }
        self.say(&format!("  ambient {set:#x}"));
    }

    pub(crate) fn credentials(&mut self) -> String {
        let uid = self.four(calls::GETRESUID, calls::SETFSUID);
        let gid = self.four(calls::GETRESGID, calls::SETFSGID);
        let groups = match self.groups() {
            Ok(groups) => print::ids(&groups),
            Err(errno) => print::errno(errno),
        };
        let capabilities = match self.capabilities(0) {
            Ok(sets) => shown(sets),
            Err(errno) => print::errno(errno),
        };
        let keep = self.ask(PR_GET_KEEPCAPS, &[]);
        let securebits = self.ask(PR_GET_SECUREBITS, &[]);
        let mut text = format!("uid {uid} gid {gid} groups {groups} caps {capabilities}");
        for (value, name) in [(keep, "keep"), (securebits, "securebits")] {
            if value != "0" {
                text += &format!(" {name} {value}");
            }
        }
        for (syscall, all, at) in [
            (calls::GETUID, &uid, 0),
            (calls::GETEUID, &uid, 1),
            (calls::GETGID, &gid, 0),
            (calls::GETEGID, &gid, 1),
        ] {
            let alone = number(self.quiet(syscall, &[]).result);
            if all.split('/').nth(at) != Some(&alone) {
                text += &format!(", but {} says {alone}", syscall.name);
            }
        }
        text
    }

    /// The real, effective, saved and file system id.
    fn four(&mut self, get: Syscall, fs: Syscall) -> String {
        let word = || Arg::Words(vec![0], Place::Heap);
        let answer = self.quiet(get, &[word(), word(), word()]);
        // setfsuid(2) and setfsgid(2) return the previous id, and ignore −1.
        let fs = number(self.quiet(fs, &[Arg::Id(super::KEEP)]).result);
        match answer.result {
            Ok(_) => {
                let ids = [0, 1, 2].map(|index| print::id(answer.words(index)[0]));
                format!("{}/{fs}", ids.join("/"))
            }
            Err(errno) => format!("{}/{fs}", print::errno(errno)),
        }
    }

    fn groups(&mut self) -> Result<Vec<u32>, i32> {
        let none = Arg::Ids(Vec::new(), Place::Null);
        let count = self
            .quiet(calls::GETGROUPS, &[Arg::Number(0), none])
            .result?;
        let room = usize::try_from(count).expect("a number of groups");
        let list = Arg::Words(vec![0; room], Place::Heap);
        let answer = self.quiet(calls::GETGROUPS, &[Arg::Number(count), list]);
        answer.result.map(|_| answer.words(1))
    }
}

fn number(result: Result<i64, i32>) -> String {
    match result {
        Ok(number) => number.to_string(),
        Err(errno) => print::errno(errno),
    }
}

pub(crate) fn shown(sets: Sets) -> String {
    format!(
        "{:x}/{:x}/{:x}",
        sets.effective, sets.permitted, sets.inheritable
    )
}
