//! Paths that change while they are used: what the kernel guarantees about chown and stat must hold
//! all the same.
//!
//! `race DIR ROUNDS SCENE...`: in each scene one thread swaps what a name leads to, as fast as it
//! can, and another one works through that name. A line for each scene that held; the first that
//! did not ends the program with exit code 1.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

use std::error::Error;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{FileStat, Mode};
use nix::unistd::{Gid, Uid, fchownat, seteuid};

type Outcome = Result<(), Box<dyn Error>>;

type Scene = fn(&Path, u32) -> Outcome;

const SCENES: [(&str, Scene); 7] = [
    ("chown-through-a-link", chown_through_a_link),
    ("lchown-of-what-may-be-a-link", lchown_of_what_may_be_a_link),
    ("stat-of-a-swapped-name", stat_of_a_swapped_name),
    ("descriptors-keep-their-file", descriptors_keep_their_file),
    ("a-directory-on-the-way", a_directory_on_the_way),
    ("two-changers", two_changers),
    ("a-new-file-is-its-makers", a_new_file_is_its_makers),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("race: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rounds, names @ ..] = arguments.as_slice() else {
        return Err("usage: race DIR ROUNDS SCENE...".into());
    };
    let rounds = rounds.parse()?;
    for name in names {
        let (_, scene) = SCENES
            .iter()
            .find(|(known, _)| known == name)
            .ok_or_else(|| format!("there is no scene {name}"))?;
        let place = Path::new(directory).join(name);
        fs::create_dir(&place)?;
        scene(&place, rounds).map_err(|error| format!("{name}: {error}"))?;
        println!("{name}: held");
    }
    Ok(())
}

/// Does `swap` over and over in a thread of its own while `work` is done `rounds` times.
fn while_swapping(
    rounds: u32,
    swap: impl Fn() -> nix::Result<()> + Sync,
    mut work: impl FnMut(u32) -> Outcome,
) -> Outcome {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                swap()?;
            }
            Ok::<(), Errno>(())
        });
        let result = (0..rounds).try_for_each(&mut work);
        done.store(true, Ordering::Relaxed);
        let swapped = swapper.join().map_err(|_| "the swapping thread panicked")?;
        result.and(swapped.map_err(Into::into))
    })
}

fn exchange(one: &Path, other: &Path) -> nix::Result<()> {
    let here = nix::fcntl::AT_FDCWD;
    renameat2(here, one, here, other, RenameFlags::RENAME_EXCHANGE)
}

/// A file whose size tells which one it is.
fn file(path: &Path, size: u32, owner: u32) -> Outcome {
    fs::write(path, vec![b'x'; size.try_into()?])?;
    Ok(chown(path, Some(owner), Some(owner))?)
}

fn owner(path: &Path) -> std::io::Result<(u32, u32)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.uid(), found.gid()))
}

fn holds(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(what().into())
    }
}

/// A link leads now to one file, now to another one. Exactly one of them gets each owner; a third
/// never does.
fn chown_through_a_link(place: &Path, rounds: u32) -> Outcome {
    let [a, b, outsider, link, spare] =
        ["a", "b", "outsider", "link", "spare"].map(|name| place.join(name));
    file(&a, 1, 1000)?;
    file(&b, 2, 2000)?;
    file(&outsider, 3, 3000)?;
    symlink("a", &link)?;
    symlink("b", &spare)?;
    lchown(&link, Some(4000), Some(4000))?;
    lchown(&spare, Some(4000), Some(4000))?;
    let swap = || exchange(&link, &spare);
    while_swapping(rounds, swap, |round| {
        let before = [owner(&a)?, owner(&b)?];
        let new = (10_000 + round, 20_000 + round);
        if round % 2 == 0 {
            chown(&link, Some(new.0), Some(new.1))?;
        } else {
            let here = nix::fcntl::AT_FDCWD;
            let (uid, gid) = (Uid::from_raw(new.0), Gid::from_raw(new.1));
            fchownat(here, &link, Some(uid), Some(gid), AtFlags::empty())?;
        }
        let after = [owner(&a)?, owner(&b)?];
        let changed = [[new, before[1]], [before[0], new]];
        holds(changed.contains(&after), || {
            format!("chown to {new:?} made {before:?} {after:?}")
        })
    })?;
    holds(owner(&outsider)? == (3000, 3000), || {
        "the file that no link leads to was changed".into()
    })?;
    let links = [owner(&link)?, owner(&spare)?];
    holds(links == [(4000, 4000); 2], || {
        format!("chown changed a link: {links:?}")
    })
}

/// A name is now a regular file, now a link to a file of others. lchown changes what the name is,
/// never what it leads to.
fn lchown_of_what_may_be_a_link(place: &Path, rounds: u32) -> Outcome {
    let [name, spare, outsider] = ["name", "spare", "outsider"].map(|name| place.join(name));
    file(&name, 1, 1000)?;
    file(&outsider, 3, 3000)?;
    symlink("outsider", &spare)?;
    let swap = || exchange(&name, &spare);
    while_swapping(rounds, swap, |round| {
        let id = 10_000 + round;
        if round % 2 == 0 {
            lchown(&name, Some(id), Some(id))?;
        } else {
            let here = nix::fcntl::AT_FDCWD;
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(here, &name, Some(uid), Some(gid), flags)?;
        }
        let found = owner(&outsider)?;
        holds(found == (3000, 3000), || {
            format!("lchown reached the link's target: {found:?}")
        })
    })
}

/// Two files with different sizes and owners change places. No stat shows the size of one and the
/// owner of the other.
fn stat_of_a_swapped_name(place: &Path, rounds: u32) -> Outcome {
    let [name, spare, link] = ["name", "spare", "link"].map(|name| place.join(name));
    file(&name, 1000, 1000)?;
    file(&spare, 2000, 2000)?;
    symlink("name", &link)?;
    let dir = File::open(place)?;
    let swap = || exchange(&name, &spare);
    let statx = |path: &PathBuf| -> Result<_, Box<dyn Error>> {
        let found = fs::symlink_metadata(path)?;
        Ok((found.size(), found.uid(), found.gid()))
    };
    let pick = |found: FileStat| (found.st_size.cast_unsigned(), found.st_uid, found.st_gid);
    while_swapping(rounds, swap, |round| {
        let (size, uid, gid) = match round % 5 {
            0 => statx(&name)?,
            1 => pick(nix::sys::stat::stat(&name)?),
            2 => pick(nix::sys::stat::lstat(&name)?),
            3 => pick(nix::sys::stat::stat(&link)?),
            _ => {
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                pick(nix::sys::stat::fstatat(dir.as_fd(), "name", flags)?)
            }
        };
        holds(size == u64::from(uid) && uid == gid, || {
            format!("a file of {size} bytes with the owner {uid}:{gid}")
        })
    })
}

/// A descriptor means the file that it was opened on, whatever its name means by now.
fn descriptors_keep_their_file(place: &Path, rounds: u32) -> Outcome {
    let [name, spare] = ["name", "spare"].map(|name| place.join(name));
    file(&name, 1, 1)?;
    file(&spare, 2, 2)?;
    let swap = || exchange(&name, &spare);
    while_swapping(rounds, swap, |round| {
        let opened = match round % 2 {
            0 => OFlag::O_RDONLY,
            _ => OFlag::O_PATH,
        };
        let opened = open(&name, opened | OFlag::O_CLOEXEC, Mode::empty())?;
        let size = nix::sys::stat::fstat(&opened)?.st_size;
        let id = 10 * (round + 1) + u32::try_from(size)?;
        match round % 3 {
            0 if round % 2 == 0 => fchown(&opened, Some(id), Some(id))?,
            1 => {
                let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
                chown(path, Some(id), Some(id))?;
            }
            _ => {
                let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
                fchownat(&opened, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
            }
        }
        let found = nix::sys::stat::fstat(&opened)?;
        let seen = (found.st_size, found.st_uid, found.st_gid);
        holds(seen == (size, id, id), || {
            format!("chown to {id} by descriptor, of a file of {size} bytes, shows {seen:?}")
        })
    })
}

/// A directory on the way changes place with a link to another one. A descriptor of a directory
/// keeps meaning it.
fn a_directory_on_the_way(place: &Path, rounds: u32) -> Outcome {
    let [way, spare, other] = ["way", "spare", "other"].map(|name| place.join(name));
    fs::create_dir(&way)?;
    fs::create_dir(&other)?;
    symlink("other", &spare)?;
    let held = File::open(&way)?;
    let through_held = PathBuf::from(format!("/proc/self/fd/{}/f", held.as_raw_fd()));
    let outside = other.join("f");
    file(&way.join("f"), 1, 1)?;
    file(&outside, 2, 2)?;
    let swap = || exchange(&way, &spare);
    while_swapping(rounds, swap, |round| {
        let id = 10 + 10 * round;
        chown(way.join("f"), Some(id), Some(id))?;
        let both = [owner(&through_held)?, owner(&outside)?];
        holds(
            both.iter().filter(|ids| **ids == (id, id)).count() == 1,
            || format!("chown to {id} of one of two files made {both:?}"),
        )?;
        let before = owner(&outside)?;
        let (uid, gid) = (Uid::from_raw(id + 1), Gid::from_raw(id + 2));
        fchownat(&held, "f", Some(uid), Some(gid), AtFlags::empty())?;
        let both = [owner(&through_held)?, owner(&outside)?];
        holds(both == [(id + 1, id + 2), before], || {
            format!("chown to {id} below a held directory made {both:?}")
        })
    })
}

/// Two threads change one file, one its uid and one its gid, and neither undoes what the other did.
fn two_changers(place: &Path, rounds: u32) -> Outcome {
    let name = place.join("name");
    file(&name, 1, 1)?;
    std::thread::scope(|scope| {
        let groups = scope.spawn(|| -> Result<(), String> {
            for round in 0..rounds {
                let gid = 2000 + round;
                lchown(&name, None, Some(gid)).map_err(|error| error.to_string())?;
                let found = owner(&name).map_err(|error| error.to_string())?;
                if found.1 != gid {
                    return Err(format!("gid {gid} was undone: {found:?}"));
                }
            }
            Ok(())
        });
        let users = (0..rounds).try_for_each(|round| {
            let uid = 1000 + round;
            chown(&name, Some(uid), None)?;
            let found = owner(&name)?;
            holds(found.0 == uid, || {
                format!("uid {uid} was undone: {found:?}")
            })
        });
        let groups = groups.join().map_err(|_| "the other thread panicked")?;
        users.and(groups.map_err(Into::into))
    })
}

/// One thread of a user makes a socket and a file again and again, another one uses them: at no
/// time do they belong to root, which would keep the user from that.
fn a_new_file_is_its_makers(place: &Path, rounds: u32) -> Outcome {
    let [socket, file] = ["s", "f"].map(|name| place.join(name));
    fs::set_permissions(place, fs::Permissions::from_mode(0o777))?;
    seteuid(Uid::from_raw(1000))?;
    let make = || {
        let listener = UnixListener::bind(&socket)?;
        fs::write(&file, b"x")?;
        fs::remove_file(&socket)?;
        fs::remove_file(&file)?;
        drop(listener);
        Ok::<(), std::io::Error>(())
    };
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let outcome = while_swapping(
        rounds,
        || make().map_err(errno),
        |_| {
            let connected = UnixStream::connect(&socket).map(drop);
            let opened = File::options().write(true).open(&file).map(drop);
            for (done, what) in [(connected, "connect"), (opened, "open")] {
                let is_denied = done.is_err_and(|it| it.raw_os_error() == Some(libc::EACCES));
                holds(!is_denied, || format!("{what} is denied"))?;
            }
            Ok(())
        },
    );
    seteuid(Uid::from_raw(0))?;
    outcome
}
