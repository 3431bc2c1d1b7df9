//! Users inside, with the packages and tools that change ids: each sees what it set, and so do its children and its files.
//!
//! The same script runs as real root with all ids mapped and under subuidless, and must print the same.

mod common;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use common::{
    Bundle, Daemon, Packages, Place, Podman, Running, Runtime, assert_same_lines, debian_owners,
    free_port, run, small_image, tool,
};

/// With this set, a second oracle stands in for subuidless: shows that a script is right and prints the same each time.
const ORACLE_TWICE: &str = "SUBUIDLESS_TEST_ORACLE_TWICE";

/// The kernel and subuidless, each with a root file system of its own.
struct Pair<'a> {
    oracle: Bundle<'a>,
    ours: Bundle<'a>,
}

impl<'a> Pair<'a> {
    /// With busybox.
    fn small(place: &'a Place, daemon: &Daemon) -> Self {
        Self {
            oracle: Bundle::oracle(place),
            ours: if std::env::var_os(ORACLE_TWICE).is_some() {
                Bundle::oracle(place)
            } else {
                Bundle::new(place, daemon)
            },
        }
    }

    fn debian(place: &'a Place, daemon: &Daemon) -> Self {
        Self {
            oracle: Bundle::debian_oracle(place),
            ours: if std::env::var_os(ORACLE_TWICE).is_some() {
                Bundle::debian_oracle(place)
            } else {
                Bundle::debian(place, daemon)
            },
        }
    }

    fn with(self, change: impl Fn(Bundle<'a>) -> Bundle<'a>) -> Self {
        Self {
            oracle: change(self.oracle),
            ours: change(self.ours),
        }
    }

    /// What both print; the tests look into it, so that two containers in which nothing works do not pass.
    #[track_caller]
    fn compare(&self, print: impl Fn(&Bundle) -> String) -> String {
        let expected = print(&self.oracle);
        assert_same_lines(expected.as_bytes(), print(&self.ours).as_bytes());
        expected
    }

    /// For another runtime.
    fn under(mut self, runtime: Runtime, daemon: &Daemon) -> Self {
        self.oracle.runtime = runtime;
        if std::env::var_os(ORACLE_TWICE).is_some() {
            self.ours.runtime = runtime;
        } else {
            self.ours = self.ours.under(runtime, daemon);
        }
        self
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.compare(|bundle| bundle.sh(script))
    }

    #[track_caller]
    fn bash(&self, script: &str) -> String {
        self.compare(|bundle| bash(bundle, script))
    }
}

#[track_caller]
fn bash(bundle: &Bundle, script: &str) -> String {
    bundle.run(&["/bin/bash", "-euc", script]).ok()
}

/// Two users, and `me`, which prints what a program and its children see of themselves.
const USERS: &str = r#"
    groupadd -g 3000 crew; useradd -m -u 2000 -s /bin/bash -G crew,audio alice; groupadd -g 70000 bob; useradd -m -u 70000 -g bob -s /bin/bash bob
    cat >/usr/local/bin/me <<'END'
#!/bin/bash -e
echo "-- ${*-}"
id; sh -c 'id; (id -G); exec id -ru'
echo "uid $UID euid $EUID groups ${GROUPS[*]}"
made=$(mktemp -d /tmp/me.XXXXXX)
cd $made
umask 022; : >file; mkdir directory; ln -s file link; mkfifo fifo
(: >of-a-child) & wait
stat -c '%n %u:%g %a' . *
chown root file 2>&1 || true
chgrp $(id -g) file; stat -c %u:%g file
stat -c %u:%g /proc/self/ /proc/self/status
cd /; rm -r $made
END
    chmod 755 /usr/local/bin/me
"#;

/// Runs `script` in two Debians with users.
fn with_users(script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    Pair::debian(&place, &daemon).bash(&format!("{}{USERS}{script}", debian_owners()))
}

/// The same, in Debians where packages have been installed.
fn with_packages(names: &str, script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = installed(&place, &daemon, names);
    pair.bash(&format!("{USERS}{script}"))
}

/// With packages installed, which leave the same behind.
fn installed<'a>(place: &'a Place, daemon: &Daemon, names: &str) -> Pair<'a> {
    let packages = Packages::serve();
    let pair = Pair::debian(place, daemon).with(|bundle| packages.reached_by(bundle));
    let (owners, install) = (debian_owners(), packages.install(names));
    pair.bash(&format!("{owners}{install}{LIST}list /"));
    pair
}

/// Owners and modes of what lies below a directory, but for what the host's root has mounted.
const LIST: &str = r"
    list() { find $1 -xdev \( -path /tmp -o -path /proc -o -path /packages.gpg \) -prune -o -printf '%p %M %U:%G %l\n' | LC_ALL=C sort; }
";

#[test]
fn setpriv_sets_ids_and_groups() {
    let seen = with_users(
        "setpriv --reuid alice --regid crew --init-groups me
        setpriv --reuid 2000 --regid 2000 --clear-groups me
        setpriv --reuid 4000 --regid 4001 --groups 5,100000,6 me
        setpriv --ruid 2000 --keep-groups sh -c 'id; id -ru'
        setpriv --euid 2000 --egid 3000 --clear-groups id
        setpriv --rgid 3000 --keep-groups sh -c 'id; id -rg'
        setpriv --reuid alice --regid alice --init-groups setpriv --dump
        setpriv --reuid alice --regid alice --init-groups --no-new-privs sh -c 'id; setpriv --reuid 0 id 2>&1; id'",
    );
    assert!(
        seen.contains("uid=2000(alice) gid=3000(crew) groups=3000(crew),29(audio),2000(alice)\n"),
        "{seen}"
    );
}

#[test]
fn runuser_sets_ids_and_groups() {
    let seen = with_users(
        "runuser -u alice me; runuser alice -c 'me -c'; runuser - alice -c 'me login; pwd; echo $HOME $LOGNAME'
        runuser -u alice -g crew me; runuser -u bob -g audio -G crew -G mail me; runuser -u bob -- runuser -u alice id 2>&1 || true",
    );
    assert!(
        seen.contains("uid=70000(bob) gid=29(audio) groups=29(audio),8(mail),3000(crew)\n"),
        "{seen}"
    );
}

#[test]
fn su_sets_ids_and_groups_for_root_and_for_users_who_know_the_password() {
    let seen = with_users(
        "chown root:shadow /etc/shadow; printf '%s\n' alice:one bob:two root:three | chpasswd
        su alice -c me; su - alice -c 'me login; pwd; echo $HOME $LOGNAME'; su -g crew bob -c me; su -s /bin/sh daemon -c me
        su alice -c 'echo two | su bob -c me' 2>/dev/null; su bob -c 'echo three | su - -c me' 2>/dev/null
        su alice -c 'echo wrong | su bob -c me' 2>&1 || true",
    );
    assert!(
        seen.contains("uid=2000(alice) gid=2000(alice) groups=2000(alice),29(audio),3000(crew)\n"),
        "{seen}"
    );
    assert!(seen.contains("uid=0(root)"), "{seen}");
    assert!(seen.ends_with("Authentication failure\n"), "{seen}");
}

#[test]
fn chroot_sets_ids_and_groups() {
    let seen = with_users(
        "chroot --userspec=alice:crew / me; chroot --userspec=bob --groups=mail,100000 / me; chroot --userspec=:crew / id
        chroot --userspec=4000:4001 --groups= / me",
    );
    assert!(
        seen.contains("uid=70000(bob) gid=70000(bob) groups=70000(bob),8(mail),100000\n"),
        "{seen}"
    );
}

#[test]
fn start_stop_daemon_sets_ids_and_groups() {
    let seen = with_users(
        r"start-stop-daemon --start -c alice:crew --exec /usr/local/bin/me -- here
        start-stop-daemon --start -c bob -g mail --umask 077 --exec /usr/local/bin/me
        start-stop-daemon --start -c alice --background --make-pidfile --pidfile /run/sleep.pid --exec /bin/sleep -- 1000
        pid=$(cat /run/sleep.pid)
        until [ $(cat /proc/$pid/comm) = sleep ]; do sleep 0.1; done
        stat -c '%U:%G %n' /proc/$pid/ /run/sleep.pid | sed s:/[0-9]*/:/PID/:
        start-stop-daemon --status -u alice --name sleep; echo $?
        start-stop-daemon --status -u bob --name sleep || echo $?
        start-stop-daemon --stop -u bob --name sleep --oknodo; kill -0 $pid; echo it runs
        start-stop-daemon --stop -u alice --name sleep --retry 10; echo $?",
    );
    assert!(
        seen.contains("-- here\nuid=2000(alice) gid=3000(crew) groups=3000(crew),29(audio)\n"),
        "{seen}"
    );
}

#[test]
fn python_sees_the_ids_that_it_set() {
    let seen = with_packages(
        "python3-minimal",
        r#"python3 - <<'END'
import os, sys, threading

def show(who):
    print(who, os.getresuid(), os.getresgid(), os.getgroups(), flush=True)

def attempt(call, *arguments):
    try:
        print(call.__name__, arguments, call(*arguments), flush=True)
    except OSError as error:
        print(call.__name__, arguments, error, flush=True)

def in_child(who, *calls):
    child = os.fork()
    if child == 0:
        for call, *arguments in calls:
            attempt(call, *arguments)
        show(who)
        os._exit(0)
    os.waitpid(child, 0)

show("at first")
in_child("swapped", (os.setresuid, 1, 2, 3), (os.setreuid, 2, 1), (os.setreuid, 2, 1), (os.setresuid, -1, 3, -1))
in_child("setuid", (os.setgid, 5), (os.setuid, 5), (os.setuid, 0), (os.setgid, 0), (os.setgroups, [1]))
in_child("back and forth", (os.seteuid, 7), (os.setgid, 9), (os.seteuid, 0), (os.setgid, 9), (os.initgroups, "alice", 2000))
os.setgroups([100000, 29])
os.setresgid(2000, 3000, 2000)
os.setresuid(2000, 2000, 70000)
show("set")
thread = threading.Thread(target=show, args=("thread",))
thread.start()
thread.join()
in_child("child", (os.setuid, 70000), (os.setuid, 0))
descriptor = os.open("/tmp/by-python", os.O_CREAT | os.O_EXCL)
found = os.fstat(descriptor)
print(found.st_uid, found.st_gid, os.access("/tmp/by-python", os.W_OK), os.access("/tmp/by-python", os.W_OK, effective_ids=True))
attempt(os.chown, "/tmp/by-python", 0, -1)
attempt(os.chown, "/tmp/by-python", -1, 29)
attempt(os.chown, "/tmp/by-python", -1, 8)
attempt(os.chmod, "/etc/passwd", 0o644)
os.spawnl(os.P_WAIT, "/usr/local/bin/me", "me", "spawned")
os.posix_spawn("/usr/bin/id", ["id"], {})
os.wait()
os.execl("/usr/local/bin/me", "me", "after exec")
END"#,
    );
    assert!(
        seen.contains("set (2000, 2000, 70000) (2000, 3000, 2000) [29, 100000]\n"),
        "{seen}"
    );
}

#[test]
fn sudo_gives_the_ids_of_its_target_to_root_and_to_users() {
    let seen = with_packages(
        "sudo",
        r"stat -c '%U:%G %a' /usr/bin/sudo /etc/sudoers
        printf '%s\n' 'alice ALL=(bob:crew,mail) NOPASSWD: ALL' '%crew ALL=(root) NOPASSWD: /usr/local/bin/me' >/etc/sudoers.d/test
        chmod 440 /etc/sudoers.d/test
        echo 127.0.0.1 localhost test >/etc/hosts; echo 'Defaults runas_allow_unknown_id' >/etc/sudoers.d/unknown
        sudo -u alice me; sudo -u alice -g crew me; sudo -u '#4000' -g '#4001' id; sudo -i -u bob me login; sudo -P -u bob id
        sudo -u alice sudo -n me as root; sudo -u alice sudo -n -u bob me as bob; sudo -u alice sudo -n -u bob -g mail id
        sudo -u bob sudo -n me 2>&1 || echo $?; sudo -u alice sudo -n id 2>&1 || echo $?
        # A file that others could have written is not believed.
        chown alice /etc/sudoers.d/test; sudo -u alice sudo -n me 2>&1 || echo $?",
    );
    assert!(seen.contains("root:root 4755\nroot:root 440\n"), "{seen}");
    assert!(
        seen.contains("-- as bob\nuid=70000(bob) gid=70000(bob) groups=70000(bob)\n"),
        "{seen}"
    );
    assert!(seen.contains("-- as root\nuid=0(root)"), "{seen}");
}

#[test]
fn programs_with_set_id_bits_run_as_the_owners_of_their_files() {
    let seen = with_users(
        r"chown root:shadow /etc/shadow; chmod 640 /etc/shadow
        stat -c '%n %U:%G %a' /usr/bin/chage /usr/bin/passwd /usr/bin/su /usr/bin/newgrp
        cp /usr/bin/id /usr/local/bin/id-of-bob; chown bob:mail /usr/local/bin/id-of-bob; chmod 6755 /usr/local/bin/id-of-bob
        cp /usr/bin/id /usr/local/bin/id-of-mail; chown bob:mail /usr/local/bin/id-of-mail; chmod 2755 /usr/local/bin/id-of-mail
        runuser -u alice id-of-bob; runuser -u alice id-of-mail; id-of-bob; runuser -u alice -- setpriv --no-new-privs id-of-bob
        runuser -u alice -- sh -c 'chage -l alice; passwd -S alice; sg crew id; chage -l bob' 2>&1 | sed 's/[0-9-]\{10\}\|[A-Z][a-z][a-z] [0-9][0-9], [0-9]\{4\}/DATE/' || true
        runuser -u alice -- sh -c 'chfn -r 1 alice; chsh -s /bin/sh' 2>&1 || true
        getent passwd alice; stat -c '%n %U:%G %a' /etc/passwd /etc/shadow
        chown alice /usr/local/bin/id-of-bob; stat -c '%U:%G %a' /usr/local/bin/id-of-bob; runuser -u bob id-of-bob
        cp /usr/bin/setpriv /usr/local/bin/setpriv-of-bob; chown bob /usr/local/bin/setpriv-of-bob; chmod 4755 /usr/local/bin/setpriv-of-bob
        runuser -u alice -- setpriv-of-bob --ruid bob id; runuser -u alice -- setpriv-of-bob --reuid 0 id 2>&1 || true",
    );
    assert!(seen.contains("euid=70000(bob) egid=8(mail)"), "{seen}");
}

/// A program of `tests/common`, built for this place.
fn compile(place: &Place, compiler: &[&str], name: &str, source: &str) -> PathBuf {
    let program = place.path(name);
    let mut command = Command::new(tool(compiler[0]));
    command.args(&compiler[1..]).arg("-o").arg(&program);
    command.arg(format!(
        "{}/tests/common/{source}",
        env!("CARGO_MANIFEST_DIR")
    ));
    command
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", place.path("go"));
    run(&mut command).ok();
    program
}

fn static_program(compiler: &[&str], name: &str, source: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let program = compile(&place, compiler, name, source);
    let pair = Pair::small(&place, &daemon)
        .with(|bundle| bundle.with_mount(&program, "/ids", &["bind", "ro"]));
    pair.sh("chmod 1777 /tmp; exec /ids")
}

#[test]
fn a_static_program_and_its_threads_see_the_ids_that_they_set() {
    let compiler = ["gcc", "-static", "-pthread"];
    let seen = static_program(&compiler, "ids-c", "ids.c");
    assert!(
        seen.contains("the thread alone: uid 4 5 0 fs 5, gid 7 8 9 fs 8,"),
        "{seen}"
    );
    assert!(
        seen.contains("the thread that followed: uid 2001 2002 2003"),
        "{seen}"
    );
}

#[test]
fn a_go_program_and_its_threads_see_the_ids_that_they_set() {
    let seen = static_program(&["go", "build"], "ids-go", "ids.go");
    assert!(seen.contains("thread 4 uid [2001 2002 2003]"), "{seen}");
}

/// Shell functions for what daemons need.
const DAEMONS: &str = r#"
    # Calls a command until it succeeds, for a minute.
    patiently() { local n; for ((n = 0; n < 600; n++)); do if "$@" 2>/dev/null; then return; fi; sleep 0.1; done; echo "never came about: $*" >&2; return 1; }
    # The processes whose command line begins with a word, and whose they are.
    processes() {
        local process line owner
        for process in /proc/[0-9]*; do
            line=$(tr '\0' ' ' <$process/cmdline) 2>/dev/null || continue
            [[ $line == $1* ]] && owner=$(stat -c %U:%G $process/) && echo "$owner $line"
        done | sed 's/ *$//' | LC_ALL=C sort
    }
"#;

#[test]
fn nginx_serves_as_www_data_what_root_has_set_up() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = installed(&place, &daemon, "nginx");
    let script = r#"
        port=PORT
        cat >/etc/nginx/sites-available/default <<END
server {
    listen 127.0.0.1:$port;
    root /var/www/html;
    location /kept { dav_methods PUT DELETE MKCOL; root /srv; }
}
END
        # Status line, headers of interest and body of an answer.
        request() {
            exec 3<>/dev/tcp/127.0.0.1/$port
            printf '%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n%s' "$1" "$2" ${#3} "$3" >&3
            tr -d '\r' <&3 | sed -n '1p; /^$/,$p'
            exec 3>&-
        }
        answers() { (request GET / '') >/dev/null; }
        echo 'a page of mine' >/var/www/html/page; mkdir /srv/kept; chown www-data /srv/kept; chmod 755 /srv/kept
        nginx -t; nginx
        patiently answers
        processes nginx: | sort -u
        request GET /page ''; request GET /none '' | head -n1
        request PUT /kept/file 'what a client sent'; request MKCOL /kept/directory/ ''; request PUT /kept/directory/file 'more'
        list /srv; cat /srv/kept/file; request DELETE /kept/file ''; ls /srv/kept
        list /var/log/nginx; list /var/lib/nginx; list /run/nginx.pid
        # The master opens new logs and gives them to the workers' user.
        mv /var/log/nginx/access.log /var/log/nginx/access.log.1; nginx -s reopen
        reopened() { [[ $(stat -c %U /var/log/nginx/access.log) = www-data ]]; }
        patiently reopened; request GET /page ''; patiently grep -q page /var/log/nginx/access.log; list /var/log/nginx
        sed -i 's/^user .*/user daemon;/' /etc/nginx/nginx.conf; nginx -s reload
        others() { [[ $(processes nginx: | sort -u | cut -d' ' -f1) = $'daemon:daemon
root:root' ]]; }
        patiently others; request GET /page ''; processes nginx: | sort -u
        nginx -s stop
        gone() { [[ -z $(processes nginx:) ]]; }
        patiently gone; [ ! -e /run/nginx.pid ]"#;
    let script = script.replace("PORT", &free_port().to_string());
    let seen = pair.bash(&format!("{LIST}{DAEMONS}{script}"));
    assert!(
        seen.contains(
            "root:root nginx: master process nginx\nwww-data:www-data nginx: worker process\n"
        ),
        "{seen}"
    );
    assert!(seen.contains("a page of mine\n"), "{seen}");
    assert!(
        seen.contains("/srv/kept/file -rw------- 33:33 \n"),
        "{seen}"
    );
}

#[test]
fn sshd_separates_privileges_and_logs_users_in() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = installed(&place, &daemon, "openssh-server openssh-client");
    let script = r#"
        port=PORT
        list /etc/ssh; getent passwd sshd; list /usr/lib/openssh; list /usr/bin/ssh-agent
        mkdir -p /run/sshd
        /usr/sbin/sshd -t; /usr/sbin/sshd -E /var/log/sshd.log -o ListenAddress=127.0.0.1 -p $port
        runuser -u alice -- ssh-keygen -q -t ed25519 -N '' -f /home/alice/.ssh/id_ed25519; list /home/alice/.ssh
        runuser -u bob -- mkdir -m 700 /home/bob/.ssh
        runuser -u alice -- cat /home/alice/.ssh/id_ed25519.pub | runuser -u bob -- tee /home/bob/.ssh/authorized_keys >/dev/null
        cat >/usr/local/bin/to <<END
#!/bin/sh -e
who=\$1; shift
exec ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p $port \$who@127.0.0.1 "\$@" </dev/null
END
        chmod 755 /usr/local/bin/to
        as_alice() { runuser -u alice -- "$@"; }
        listening() { exec 3<>/dev/tcp/127.0.0.1/$port && read -r -t 10 <&3 && exec 3>&-; }
        patiently listening
        as_alice to bob 'me over ssh; pwd; echo $HOME $USER'
        # While a session lasts: the monitor is root's, the rest bob's.
        as_alice to bob 'echo $$ >/tmp/session; exec sleep 1000' & session=$!
        patiently test -s /tmp/session
        processes 'sshd: bob'; processes sleep
        kill $session; wait $session 2>/dev/null || true
        # Before anybody has logged in, a process without privileges in an empty root talks to the client.
        exec 4<>/dev/tcp/127.0.0.1/$port; printf 'SSH-2.0-test\r\n' >&4
        talks() { processes 'sshd: ' | grep -F 'sshd: [net]'; }
        patiently talks; exec 4>&-
        # On a terminal, which sshd gives to the user.
        as_alice to bob -tt 'stat -c "%U:%G %a %F" $(tty)' | tr -d '\r'
        # Of files that somebody else owns sshd believes nothing.
        chown alice /home/bob/.ssh/authorized_keys; as_alice to bob id 2>&1 || true; chown bob /home/bob/.ssh/authorized_keys
        chown alice /home/bob; as_alice to bob id 2>&1 || true; chown bob /home/bob; as_alice to bob id
        chown root:root /home/bob/.ssh/authorized_keys; as_alice to bob id
        # The client wants its key for itself.
        as_alice to root id 2>&1 || true
        echo sent >/tmp/sent; chown alice /tmp/sent
        as_alice scp -q -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -P $port /tmp/sent bob@127.0.0.1:received
        list /home/bob
        pkill() { kill $(cat /run/sshd.pid); }; pkill
        sed -n 's/.*\(Accepted publickey for [a-z]*\).*/\1/p; s/.*\(Authentication refused: bad ownership.*\)/\1/p' /var/log/sshd.log"#;
    let script = script.replace("PORT", &free_port().to_string());
    let seen = pair.bash(&format!("{USERS}{LIST}{DAEMONS}{script}"));
    assert!(
        seen.contains("-- over ssh\nuid=70000(bob) gid=70000(bob) groups=70000(bob)\n"),
        "{seen}"
    );
}

/// A container whose init waits for processes that lose their parents, as a container's init should.
const INIT: [&str; 3] = ["/bin/bash", "-c", "while sleep 1000; do :; done"];

#[test]
fn postgresql_runs_as_the_user_that_its_package_made_and_knows_its_peers() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = installed(&place, &daemon, "postgresql");
    let common = r#"
        version=$(ls /etc/postgresql)
        # As a user, with options of psql.
        query() { echo "$2" | su "$1" -c "psql -X -q -tA -v ON_ERROR_STOP=1 -d postgres ${3-}"; }
        # Some files come and go when the server finds the time.
        owners() {
            list /var/lib/postgresql | grep -v -E 'pg_internal.init|pgstat|/pg_wal/0|/[0-9]+_(fsm|vm) '
            list /etc/postgresql; list /run/postgresql; list /var/log/postgresql
        }
    "#;
    let exec = |container: &Running, script: &str| {
        let script = format!("{LIST}{DAEMONS}{common}{script}");
        container.exec(&["/bin/bash", "-euc", &script]).ok()
    };
    let make = format!(
        r#"{USERS}
        owners
        # No other container with the host's network should be in the way.
        pg_conftool $version main set listen_addresses ''; list /etc/postgresql
        pg_ctlcluster $version main start; pg_lsclusters -h | tr -s ' '
    "#
    );
    let ask = r#"
        owners
        processes postgres: | cut -d' ' -f1 | sort -u; processes /usr/lib/postgresql
        query postgres 'select 1'
        query postgres 'select 1' '-U alice' 2>&1 || true
        query alice 'select 1' 2>&1 || true
        su postgres -c 'createuser alice; createdb -O alice hers'
        query alice 'select current_user, session_user, inet_client_addr()'
        query root 'select 1' 2>&1 || true; query alice 'select 1' '-U postgres' 2>&1 || true; query bob 'select 1' '-U alice' 2>&1 || true
        query alice 'create table kept (word text); insert into kept select n from generate_series (1, 10000) n' '-d hers'
        query postgres "copy (select 1) to '/tmp/by-the-server'"; stat -c '%U:%G %a' /tmp/by-the-server
        # The server refuses to run as root, and to use what is not its own.
        /usr/lib/postgresql/$version/bin/postgres -D /var/lib/postgresql/$version/main 2>&1 | head -n1"#;
    let again = r#"
        pg_ctlcluster $version main start
        query alice 'select count(*) from kept' '-d hers'
        query postgres 'select usename from pg_user order by 1'
        pg_ctlcluster $version main stop; processes postgres:
        data=/var/lib/postgresql/$version/main
        chown alice $data; pg_ctlcluster $version main start 2>&1 || echo refused; chown postgres $data
        chmod 777 $data; pg_ctlcluster $version main start 2>&1 | grep -v -E '^[0-9]{4}-' || echo refused; chmod 700 $data
        su postgres -c "pg_ctlcluster --skip-systemctl-redirect $version main start"; query postgres 'select 2'
        owners
        pg_dropcluster --stop $version main; list /var/lib/postgresql; list /etc/postgresql"#;
    let seen = pair.compare(|bundle| {
        let container = bundle.start(&INIT);
        let mut seen = exec(&container, &make);
        seen += &exec(&container, ask);
        container.stop();
        let container = bundle.start(&INIT);
        seen += &exec(&container, again);
        container.stop();
        seen
    });
    assert!(seen.contains("\n1\n"), "{seen}");
    assert!(seen.contains("alice|alice|\n"), "{seen}");
    assert!(seen.contains("10000\n"), "{seen}");
    assert!(
        seen.matches("Peer authentication failed").count() >= 3,
        "{seen}"
    );
}

/// What a process sees of itself, with busybox; /tmp is everybody's.
const SMALL_ME: &str = r#"
    id; (exec id); sh -c 'id -u; id -g'
    cd /tmp; made=by-$$; mkdir $made; echo text >$made/file; ln -s file $made/link; stat -c '%u:%g %A' $made $made/file $made/link
    chown 5 $made/file 2>&1 || true; rm -r $made; stat -c %u:%g /proc/self/
"#;

/// config.json says who the process is, and the runtime sets its ids under the filter.
fn process_user(runtime: Runtime) {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut pair = Pair::small(&place, &daemon).under(runtime, &daemon);
    pair.sh("chmod 1777 /tmp; stat -c %a /tmp");
    for user in [
        json!({"uid": 999, "gid": 999}),
        json!({"uid": 999, "gid": 998, "additionalGids": [4, 24, 100_000]}),
        json!({"uid": 100_000, "gid": 0, "additionalGids": [999]}),
        json!({"uid": 0, "gid": 7, "additionalGids": [8]}),
        json!({"uid": 0, "gid": 0, "additionalGids": [70_000]}),
    ] {
        let change = |config: &mut Value| config["process"]["user"] = user.clone();
        pair = pair.with(|bundle| bundle.with_config(change));
        let seen = pair.sh(SMALL_ME);
        let expected = format!("uid={} gid={}", user["uid"], user["gid"]);
        assert!(seen.starts_with(&expected), "{seen}");
    }
}

#[test]
fn the_user_of_config_json_is_who_crun_starts() {
    process_user(Runtime::Crun);
}

#[test]
fn the_user_of_config_json_is_who_runc_starts() {
    process_user(Runtime::Runc);
}

/// The same podman commands by root and by the user, whose containers have one mapped id.
fn podman(runtime: &str) {
    // Before the lock: the first place takes it, too.
    let place = Place::new();
    // podman keeps some things for each user, whatever HOME is.
    let _one_at_a_time = common::lock();
    let daemon = Daemon::start(&place);
    let tar = small_image(&place);
    // Neither additional groups, which a podman with one mapped id leaves out, nor names, which only root's podman gives
    // to unknown ids.
    let script = format!(
        r#""$@" import {tar} small >/dev/null
        me='id -u; id -g; (id -u; id -g); touch /tmp/f; stat -c "%u:%g %a" /tmp/f
            chown 5 /tmp/f 2>&1; rm /tmp/f; stat -c %u:%g /proc/self/'
        files='until ls /tmp/by-* >/dev/null 2>&1; do sleep 0.1; done; stat -c "%u:%g %n" /tmp/* /proc/1/'
        for user in 999 999:999 70000:100000 0:7 web web:extra; do
            echo "-- run --user $user"
            "$@" run --rm --env $MARK --network=none $OPTIONS --user $user localhost/small sh -c "$me"
        done
        start() {{
            local name=$1 user=$2; shift 2
            "$@" run --env $MARK --network=none $OPTIONS --name $name --user $user -d localhost/small \
                sh -c 'echo >/tmp/by-init; exec sleep 1000000' >/dev/null
        }}
        start c1 0 "$@"; start c2 999:998 "$@"
        for container in c1 c2; do
            for user in 999 70000:100000 web web:extra 0; do
                echo "-- exec -u $user $container"
                "$@" exec -u $user $container sh -c "$me"
            done
            echo "-- exec $container"
            "$@" exec $container sh -c "$me; $files"
            "$@" stop -t 0 $container >/dev/null; "$@" start $container >/dev/null
            echo "-- exec $container again"
            "$@" exec $container sh -c "$me; $files"
        done
        "$@" rm -f -t 0 c1 c2 >/dev/null"#,
        tar = tar.display()
    );
    let oracle = Podman::of_root(&place).sh(&script).ok();
    assert!(
        oracle.contains("-- run --user 999:999\n999\n999\n999\n999\n999:999 644\n"),
        "{oracle}"
    );
    let ours = if std::env::var_os(ORACLE_TWICE).is_some() {
        Podman::of_root(&place)
    } else {
        Podman::of_user(&place, &daemon, runtime)
    };
    assert_same_lines(oracle.as_bytes(), &ours.sh(&script).bytes());
}

#[test]
fn podman_runs_and_execs_as_users_with_crun() {
    podman("crun");
}

#[test]
fn podman_runs_and_execs_as_users_with_runc() {
    podman("runc");
}
