//! Users inside, with the packages and tools that change ids: each sees what it set, and so do its
//! children and its files.
//!
//! The same script runs as real root with all ids mapped and under subuidless, and must print the
//! same.

mod common;

use serde_json::{Value, json};

use common::{
    Bundle, Daemon, Packages, Pair, Place, Podman, Running, Runtime, assert_same_lines,
    debian_owners, example, free_port, oracle_twice, small_image,
};

/// Functions for scripts: `make_users`, `list`, `patiently`, `processes`.
const COMMON: &str = include_str!("users/common.sh");

/// What the daemon complained of.
fn complaints(daemon: &Daemon) -> Vec<String> {
    let mut lines = daemon.lines(&[" WARN "]);
    lines.extend(daemon.lines(&["ERROR"]));
    lines
}

/// Runs `script` in two Debians with users.
fn with_users(script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let script = format!("{COMMON}{}make_users\n{script}", debian_owners());
    let seen = Pair::debian(&place, &daemon).bash(&script);
    assert_eq!(complaints(&daemon), [""; 0]);
    seen
}

/// The same, in Debians where packages have been installed.
fn with_packages(names: &str, script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = installed(&place, &daemon, names);
    let seen = pair.bash(&format!("{COMMON}make_users\n{script}"));
    assert_eq!(complaints(&daemon), [""; 0]);
    seen
}

/// With packages installed, which leave the same behind.
fn installed<'a>(place: &'a Place, daemon: &Daemon, names: &str) -> Pair<'a> {
    let packages = Packages::serve();
    let pair = Pair::debian(place, daemon).with(|bundle| packages.reached_by(bundle));
    let (owners, install) = (debian_owners(), packages.install(names));
    pair.bash(&format!("{COMMON}{owners}{install}list /"));
    pair
}

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

/// Any program may choose its name.
#[test]
fn a_process_whose_name_is_no_text_is_who_it_became() {
    let seen = with_users(
        r"perl -e 'open F, q(>/proc/self/comm); print F qq(\xff\xfe); close F; $) = q(7 7 8);
        ($<, $>) = (33, 33); umask 027; mkdir q(/tmp/d); exec qw(sh -c), q(id; umask; stat -c %a%u%g /tmp/d)'",
    );
    assert!(seen.starts_with("uid=33(www-data) gid="), "{seen}");
}

/// Signals, priorities, limits and namespaces, as users try them on root's processes, each other's
/// and their own.
#[test]
fn processes_are_safe_from_other_users() {
    let seen = with_users(include_str!("users/processes.sh"));
    for line in ["Operation not permitted", "alice: 143"] {
        assert!(seen.contains(line), "{seen}");
    }
}

/// Each has a table of its own, of which the limits of its processes give a number.
#[test]
fn a_process_of_another_run_is_nobody_of_this_one() {
    let place = Place::new();
    let sleeps = [
        "run",
        "--",
        "setpriv",
        "--reuid",
        "4242",
        "--clear-groups",
        "sleep",
        "1000",
    ];
    let mut other = place.subuidless(sleeps).spawn().expect("subuidless run");
    let pid = other.id();
    let script = format!(
        "until grep -q sleep /proc/{pid}/comm; do sleep 0.01; done
        setpriv --reuid 5 --clear-groups true; stat -c %u /proc/{pid}
        setpriv --reuid 5 --clear-groups sh -c 'kill -0 {pid} || echo no'"
    );
    let seen = common::run(&mut place.subuidless(["run", "--", "sh", "-c", &script])).ok();
    other.kill().expect("a process");
    other.wait().expect("a child");
    assert_eq!(seen, "0\nno\n");
}

#[test]
fn users_open_their_own_pipes_by_name() {
    let seen = with_users(
        "cat >/tmp/pipes <<'end'
        cat <(echo a)
        echo b | cat /dev/stdin
        echo c | tee /dev/stdout | cat
        echo d | tee >(cat >/tmp/copy.$UID) >&2
        patiently test -s /tmp/copy.$UID
        for access in -r -w -x; do echo | env test $access /dev/stdin; echo e $access $?; done
end
        export -f patiently
        for prefix in '' 'env -u LD_PRELOAD'; do
            setpriv --reuid alice --regid crew --init-groups $prefix bash /tmp/pipes 2>&1
            rm /tmp/copy.*
        done",
    );
    assert_eq!(
        seen.matches("e -r 0\ne -w 0\ne -x 1\n").count(),
        2,
        "{seen}"
    );
}

#[test]
fn runuser_sets_ids_and_groups() {
    let seen = with_users(
        "runuser -u alice me; runuser alice -c 'me -c'
        runuser - alice -c 'me login; pwd; echo $HOME $LOGNAME'
        runuser -u alice -g crew me; runuser -u bob -g audio -G crew -G mail me
        runuser -u bob -- runuser -u alice id 2>&1 || true",
    );
    assert!(
        seen.contains("uid=70000(bob) gid=29(audio) groups=29(audio),8(mail),3000(crew)\n"),
        "{seen}"
    );
}

#[test]
fn su_sets_ids_and_groups_for_root_and_for_users_who_know_the_password() {
    let seen = with_users(
        "printf '%s\n' alice:one bob:two root:three | chpasswd
        su alice -c me; su - alice -c 'me login; pwd; echo $HOME $LOGNAME'; su -g crew bob -c me
        su -s /bin/sh daemon -c me
        su alice -c 'echo two | su bob -c me' 2>/dev/null
        su bob -c 'echo three | su - -c me' 2>/dev/null
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
        "chroot --userspec=alice:crew / me; chroot --userspec=bob --groups=mail,100000 / me
        chroot --userspec=:crew / id
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
        patiently grep -q sleep /proc/$pid/comm
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
        concat!(
            "python3 - <<'END'\n",
            include_str!("users/python.py"),
            "END"
        ),
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
        echo 127.0.0.1 localhost test >/etc/hosts
        echo 'Defaults runas_allow_unknown_id' >/etc/sudoers.d/unknown
        sudo -u alice me; sudo -u alice -g crew me; sudo -u '#4000' -g '#4001' id
        sudo -i -u bob me login; sudo -P -u bob id
        sudo -u alice sudo -n me as root; sudo -u alice sudo -n -u bob me as bob
        sudo -u alice sudo -n -u bob -g mail id
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
        r"stat -c '%n %U:%G %a' /usr/bin/chage /usr/bin/passwd /usr/bin/su /usr/bin/newgrp
        cp /usr/bin/id /usr/local/bin/id-of-bob; chown bob:mail /usr/local/bin/id-of-bob
        chmod 6755 /usr/local/bin/id-of-bob
        cp /usr/bin/id /usr/local/bin/id-of-mail; chown bob:mail /usr/local/bin/id-of-mail
        chmod 2755 /usr/local/bin/id-of-mail
        runuser -u alice id-of-bob; runuser -u alice id-of-mail; id-of-bob
        runuser -u alice -- setpriv --no-new-privs id-of-bob
        runuser -u alice -- sh -c 'chage -l alice; passwd -S alice; sg crew id; chage -l bob' 2>&1 | sed 's/[0-9-]\{10\}\|[A-Z][a-z][a-z] [0-9][0-9], [0-9]\{4\}/DATE/' || true
        runuser -u alice -- sh -c 'chfn -r 1 alice; chsh -s /bin/sh' 2>&1 || true
        getent passwd alice; stat -c '%n %U:%G %a' /etc/passwd /etc/shadow
        chown alice /usr/local/bin/id-of-bob; stat -c '%U:%G %a' /usr/local/bin/id-of-bob
        runuser -u bob id-of-bob
        cp /usr/bin/setpriv /usr/local/bin/setpriv-of-bob; chown bob /usr/local/bin/setpriv-of-bob
        chmod 4755 /usr/local/bin/setpriv-of-bob
        runuser -u alice -- setpriv-of-bob --ruid bob id
        runuser -u alice -- setpriv-of-bob --reuid 0 id 2>&1 || true",
    );
    assert!(seen.contains("euid=70000(bob) egid=8(mail)"), "{seen}");
}

/// A worker remembers programs whose execution changes nothing.
#[test]
fn a_program_that_changes_after_it_was_executed_is_not_taken_for_what_it_was() {
    let seen = with_users(
        r#"run() { sleep 0.1; for i in 1 2 3; do runuser -u alice -- ./program || echo "failed: $?"; done; }
        install -d /srv/p; cd /srv/p; cp /usr/bin/id program
        run; chown bob:mail program; run; chmod u+s program; run; chmod g+s program; run
        chown bob:mail program; run; chmod 744 program; run; chmod 755 program; run
        cp /usr/bin/id id-of-bob; chown bob id-of-bob; chmod 4755 id-of-bob
        echo '#!/srv/p/id-of-bob' >program; run; cat /usr/bin/true >program; run
        mv id-of-bob program; run; cp -p program other; mv other program; run"#,
    );
    for expected in ["euid=70000(bob)", "egid=8(mail)", "failed: 1"] {
        assert!(seen.contains(expected), "{seen}");
    }
}

fn static_program(compiler: &[&str], name: &str, source: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let program = common::compile(&place, compiler, name, &format!("users/{source}"));
    let pair = Pair::small(&place, &daemon)
        .with(|bundle| bundle.with_mount(&program, "/ids", &["bind", "ro"]));
    let seen = pair.sh("chmod 1777 /tmp; exec /ids");
    assert_eq!(complaints(&daemon), [""; 0]);
    seen
}

#[test]
fn files_of_a_user_who_has_restricted_itself_belong_to_it() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let program = common::compile(&place, &["gcc"], "landlock", "users/landlock.c");
    let pair = Pair::debian(&place, &daemon)
        .with(|bundle| bundle.with_mount(&program, "/landlock", &["bind", "ro"]));
    let prepare =
        "mkdir -p /work/roots /work/groups; chown alice:alice /work; chgrp crew /work/groups
        chmod 2777 /work/groups; stat -c '%n %A' /work/*\n";
    let run = "exec setpriv --reuid alice --regid alice --init-groups /landlock /work\n";
    pair.bash(&format!("{COMMON}make_users\n{prepare}"));
    let seen = pair.bash(run);
    let left = pair.bash("cd /work; find . -printf '%p %M %U:%G\n' | sort; ls /tmp");
    for line in ["fchown: done\n", "in root's: Permission denied\n"] {
        assert!(seen.contains(line), "{seen}");
    }
    assert!(left.contains("./last -rw------- 2000:2000\n"), "{left}");
    assert_eq!(complaints(&daemon), [""; 0]);
}

#[test]
fn variables_of_the_loader_do_not_reach_programs_that_gain_something() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let program = common::compile(&place, &["gcc"], "secure", "users/secure.c");
    let pair = Pair::debian(&place, &daemon)
        .with(|bundle| bundle.with_mount(&program, "/secure", &["bind", "ro"]));
    let script = include_str!("users/secure.sh");
    let seen = pair.bash(&format!("{COMMON}make_users\n{script}"));
    let library = format!("/lib/{}-linux-gnu/libm.so.6", std::env::consts::ARCH);
    for line in [
        "it: uid 2000 euid 0: OTHER=5\n",
        &format!("parent: uid 2000 euid 2000: LD_PRELOAD={library} "),
    ] {
        assert!(seen.contains(line), "{seen}");
    }
    assert_eq!(complaints(&daemon), [""; 0]);
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

/// Installs packages and runs a daemon of theirs on a free `$port` of the loopback.
fn daemon_of(names: &str, script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = installed(&place, &daemon, names);
    let seen = pair.bash(&format!("{COMMON}port={}\n{script}", free_port()));
    assert_eq!(complaints(&daemon), [""; 0]);
    seen
}

#[test]
fn nginx_serves_as_www_data_what_root_has_set_up() {
    let seen = daemon_of("nginx", include_str!("users/nginx.sh"));
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
    let seen = daemon_of(
        "openssh-server openssh-client",
        include_str!("users/sshd.sh"),
    );
    assert!(
        seen.contains("-- over ssh\nuid=70000(bob) gid=70000(bob) groups=70000(bob)\n"),
        "{seen}"
    );
    let talks = ["sshd: [net]", "sshd-auth: [session-auth]"]
        .iter()
        .any(|title| seen.contains(&format!("sshd:nogroup {title}\n")));
    assert!(talks, "{seen}");
    assert_eq!(seen.matches("Permission denied").count(), 3, "{seen}");
}

/// A container whose init waits for processes that lose their parents, as a container's init
/// should.
const INIT: [&str; 3] = ["/bin/bash", "-c", "while sleep 1000; do :; done"];

#[test]
fn postgresql_runs_as_the_user_that_its_package_made_and_knows_its_peers() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = installed(&place, &daemon, "postgresql");
    let exec = |container: &Running, function: &str| {
        let script = format!("{COMMON}{}{function}", include_str!("users/postgresql.sh"));
        container.exec(&["/bin/bash", "-euc", &script]).ok()
    };
    let seen = pair.compare(|bundle| {
        let container = bundle.start(&INIT);
        let mut seen = exec(&container, "first") + &exec(&container, "ask");
        container.stop();
        let container = bundle.start(&INIT);
        seen += &exec(&container, "again");
        container.stop();
        seen
    });
    assert_eq!(complaints(&daemon), [""; 0]);
    assert!(seen.contains("\n1\n"), "{seen}");
    assert!(seen.contains("alice|alice\n"), "{seen}");
    assert!(seen.contains("10000\n"), "{seen}");
    assert_eq!(
        seen.matches("Peer authentication failed").count(),
        4,
        "{seen}"
    );
}

/// What a process sees of itself, with busybox; /tmp is everybody's.
const SMALL_ME: &str = r#"
    id; (exec id); sh -c 'id -u; id -g'
    cd /tmp; made=by-$$; mkdir $made; echo text >$made/file; ln -s file $made/link
    stat -c '%u:%g %A' $made $made/file $made/link
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
    assert_eq!(complaints(&daemon), [""; 0]);
}

#[test]
fn the_user_of_config_json_is_who_crun_starts() {
    process_user(Runtime::Crun);
}

#[test]
fn the_user_of_config_json_is_who_runc_starts() {
    process_user(Runtime::Runc);
}

#[test]
fn a_program_that_has_threads_at_once_is_who_the_runtime_made_it() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let program = example("target");
    for runtime in [Runtime::Crun, Runtime::Runc] {
        for uid in [0, 999] {
            let change = |config: &mut Value| config["process"]["user"]["uid"] = json!(uid);
            let oracle = Bundle::oracle(&place).with_program(&program);
            let ours = Bundle::new(&place, &daemon).with_program(&program);
            let [oracle, ours] = [oracle, ours.under(runtime, &daemon)].map(|bundle| {
                bundle
                    .with_config(change)
                    .run(&["/target", "identity"])
                    .ok()
            });
            assert!(oracle.starts_with(&format!("{uid} 0\n")), "{oracle}");
            assert_same_lines(oracle.as_bytes(), ours.as_bytes());
        }
    }
}

/// The same podman commands by root and by the user, whose containers have one mapped id.
fn podman(runtime: &str) {
    // Before the lock: the first place takes it, too.
    let place = Place::new();
    // podman keeps some things for each user, whatever HOME is.
    let _one_at_a_time = common::lock();
    let daemon = Daemon::start(&place);
    small_image(&place);
    let script = include_str!("users/podman.sh");
    let oracle = Podman::of_root(&place).sh(script).ok();
    assert!(
        oracle.contains("-- run --user 999:999\n999\n999\n999\n999\n999:999 644\n"),
        "{oracle}"
    );
    let ours = if oracle_twice() {
        Podman::of_root(&place)
    } else {
        Podman::of_user(&place, &daemon, runtime)
    };
    assert_same_lines(oracle.as_bytes(), &ours.sh(script).bytes());
    assert_eq!(complaints(&daemon), [""; 0]);
}

#[test]
fn podman_runs_and_execs_as_users_with_crun() {
    podman("crun");
}

#[test]
fn podman_runs_and_execs_as_users_with_runc() {
    podman("runc");
}
