//! Processes that make the calls which the daemon's worker answers, for tests to watch.
//!
//! ```text
//! target connect SOCKET      connects to SOCKET and passes the connection on through standard input, itself a socket
//! target filtered FILE       loads a filter that notifies chown and stat, and passes the listener on through standard
//!                            input; for each byte that comes there: chowns FILE to 42:43 and answers with a line
//! target steady DIR THREADS  chowns and creates files in DIR, as other users, in each thread, until there is a file DIR/stop
//! target identity            starts threads before anything else, and then says who it is, and becomes uid 7 if it can
//! target unmapped FILE       makes a user namespace, looks at FILE before it maps its ids, chowns it then and says whose it is
//! target stuck DIR THREADS   mounts a file system on DIR that never answers, and has so many threads wait for it
//! ```

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getresgid, getresuid, setfsuid, setgid, setuid};
use sendfd::SendWithFd;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["connect", socket] => connect(socket),
        ["filtered", file] => filtered(Path::new(file)),
        ["steady", directory, threads] => steady(Path::new(directory), threads),
        ["identity"] => identity(),
        ["unmapped", file] => unmapped(Path::new(file)),
        ["stuck", directory, threads] => stuck(Path::new(directory), threads),
        _ => Err("usage: see the source".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("target: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As Go programs do: nothing is asked of anybody before there are several threads.
fn identity() -> Outcome {
    for _ in 0..3 {
        std::thread::spawn(std::thread::park);
    }
    println!("{} {}", getresuid()?.effective, getresgid()?.effective);
    let created = fs::write("/etc/created", "").map_err(|error| error.kind());
    println!("{created:?}");
    println!("{:?}", setuid(Uid::from_raw(0)));
    // libc has all threads do it.
    let changed = setgid(Gid::from_raw(7)).and_then(|()| setuid(Uid::from_raw(7)));
    println!("{changed:?} {}", Uid::effective());
    println!("{:?}", setuid(Uid::from_raw(0)));
    let child = std::process::Command::new("/bin/id").arg("-u").output()?;
    print!("{}", String::from_utf8(child.stdout)?);
    Ok(())
}

fn standard_input() -> std::io::Result<UnixStream> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(UnixStream::from(stdin))
}

fn connect(socket: &str) -> Outcome {
    let connection = UnixStream::connect(socket)?;
    standard_input()?.send_with_fd(b"+", &[connection.as_raw_fd()])?;
    Ok(())
}

fn filtered(file: &Path) -> Outcome {
    let mut test = standard_input()?;
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    for name in ["chown", "lchown", "stat", "lstat", "newfstatat", "statx"] {
        filter.add_rule(ScmpAction::Notify, ScmpSyscall::from_name(name)?)?;
    }
    filter.load()?;
    let listener = filter.get_notify_fd()?;
    test.send_with_fd(b"+", &[listener])?;
    nix::unistd::close(listener)?;
    while test.read(&mut [0])? == 1 {
        let answer = chown(file, Some(42), Some(43)).and_then(|()| fs::metadata(file));
        let line = match answer {
            Ok(found) => format!("{}:{}\n", found.uid(), found.gid()),
            Err(error) => format!("{error}\n"),
        };
        test.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn steady(directory: &Path, threads: &str) -> Outcome {
    let threads: u32 = threads.parse()?;
    let stop = directory.join("stop");
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let stop = stop.as_path();
                scope.spawn(move || steady_thread(directory, stop, number))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err("a thread panicked".into()))
        })
    })?;
    println!("all calls went well");
    Ok(())
}

fn steady_thread(directory: &Path, stop: &Path, number: u32) -> Outcome {
    let file = directory.join(format!("file-{number}"));
    let link = directory.join(format!("link-{number}"));
    fs::write(&file, "")?;
    symlink(&file, &link)?;
    let everybodys = directory.join(format!("everybodys-{number}"));
    fs::create_dir(&everybodys)?;
    fs::set_permissions(&everybodys, fs::Permissions::from_mode(0o777))?;
    for round in 0.. {
        create_as(&everybodys.join("own"), 1000 + number)?;
        chown(&link, Some(round), Some(number))?;
        lchown(&link, Some(number), Some(round))?;
        let (seen, seen_link) = (fs::metadata(&link)?, fs::symlink_metadata(&link)?);
        let owners = [seen.uid(), seen.gid(), seen_link.uid(), seen_link.gid()];
        if owners != [round, number, number, round] {
            return Err(format!("thread {number}, round {round}: {owners:?}").into());
        }
        if round % 10 == 0 {
            println!("thread {number}, round {round}");
            if stop.try_exists()? {
                break;
            }
        }
    }
    Ok(())
}

/// Creates and removes a file as another user, whom only this thread becomes.
fn create_as(file: &Path, user: u32) -> Outcome {
    let before = setfsuid(Uid::from_raw(user));
    // Tried again, the call may find the file that it has made before its worker was killed.
    let created = fs::write(file, "");
    let between = setfsuid(Uid::from_raw(0));
    created?;
    let owner = fs::metadata(file)?.uid();
    fs::remove_file(file)?;
    if (before.as_raw(), between.as_raw(), owner) == (0, user, user) {
        return Ok(());
    }
    Err(format!("as {user}: {before}, then {between}, and a file of {owner}").into())
}

/// In a new namespace nobody is mapped at first, and what is asked meanwhile must not be
/// remembered.
fn unmapped(file: &Path) -> Outcome {
    let (uid, gid) = (getresuid()?.effective, getresgid()?.effective);
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::metadata(file)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::metadata(file)?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    chown(file, Some(42), Some(43))?;
    let found = fs::metadata(file)?;
    println!("{}:{}", found.uid(), found.gid());
    Ok(())
}

/// FUSE by hand (linux/fuse.h): answers FUSE_INIT, which mounting takes, and nothing else.
fn stuck(directory: &Path, threads: &str) -> Outcome {
    let threads: u32 = threads.parse()?;
    let mut device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    mount(
        Some("stuck"),
        directory,
        Some("fuse"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )?;
    let mut request = vec![0; 1 << 17];
    let length = device.read(&mut request)?;
    let unique = request.get(8..16).ok_or("a request is longer")?;
    let (major, minor, flags) = (7u32, 31u32, 0u32);
    let words = [
        major, minor, 4096, flags, 0, 4096, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let header_length = 16;
    let mut answer = u32::try_from(header_length + body.len())?
        .to_ne_bytes()
        .to_vec();
    answer.extend(0u32.to_ne_bytes());
    answer.extend(unique);
    answer.extend(body);
    device.write_all(&answer)?;
    println!("mounted, after a request of {length} bytes");
    let waiters: Vec<_> = (0..threads)
        .map(|number| {
            let file = directory.join(format!("file-{number}"));
            std::thread::spawn(move || fs::metadata(file))
        })
        .collect();
    // Not read: the process that waits for a request which nobody has taken yet can be killed.
    let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE)?;
    println!("stuck");
    // Never comes back: whoever started this kills it.
    for waiter in waiters {
        let _ = waiter.join();
    }
    Err("the file system has answered".into())
}
