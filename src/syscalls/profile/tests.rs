use super::*;
use libseccomp::ScmpSyscall;

fn request(format: Format, runtime: Runtime) -> Request<'static> {
    Request {
        format,
        runtime,
        listener_path: Some("/r.sock"),
        capabilities: &USUAL_CAPABILITIES,
        wait_killable: true,
        is_denied: true,
        scope: Scope::default(),
    }
}

fn oci(base: &Value) -> Result<Map<String, Value>, String> {
    weave(
        base.as_object().unwrap(),
        &request(Format::Oci, Runtime::Crun),
    )
}

/// The actions and arguments of the rules that name `name`.
fn rules<'a>(profile: &'a Map<String, Value>, name: &str) -> Vec<(&'a str, &'a Value)> {
    let rules = profile["syscalls"].as_array().unwrap();
    rules
        .iter()
        .filter(|rule| {
            rule["names"]
                .as_array()
                .unwrap()
                .iter()
                .any(|other| other == name)
        })
        .map(|rule| (rule["action"].as_str().unwrap(), &rule["args"]))
        .collect()
}

#[test]
fn every_row_of_the_table_is_notified_and_io_uring_does_not_exist() {
    let profile = weave(&allow_all(), &request(Format::Oci, Runtime::Crun)).unwrap();
    assert!(rules(&profile, "seccomp").is_empty());
    for row in rows(Scope::default()) {
        let rules = rules(&profile, row.name);
        if row.bare_number().is_some() {
            assert!(rules.is_empty());
            continue;
        }
        assert!(!rules.is_empty() && rules.iter().all(|(action, _)| *action == NOTIFY));
    }
    for name in IO_URING {
        assert_eq!(rules(&profile, name).len(), 1);
        assert!(ScmpSyscall::from_name(name).is_ok());
    }
    assert_eq!(profile["listenerPath"], "/r.sock");
    assert_eq!(
        profile["flags"],
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    );
    let runc = weave(&allow_all(), &request(Format::Oci, Runtime::Runc)).unwrap();
    assert_eq!(runc.get("flags"), None);
}

#[test]
fn unless_that_is_denied_already_what_has_no_name_does_not_exist() {
    let open = request(Format::Oci, Runtime::Crun);
    let request = Request {
        is_denied: false,
        ..open
    };
    let weave = |base: &Value| weave(base.as_object().unwrap(), &request).unwrap();
    let profile = weave(&Value::Object(allow_all()));
    assert_eq!(profile["defaultAction"], ERRNO);
    assert_eq!(profile["defaultErrnoRet"], libc::ENOSYS);
    for row in rows(Scope::default()).filter(|row| row.bare_number().is_none()) {
        let rules = rules(&profile, row.name);
        assert_eq!(rules[0].0, NOTIFY, "{}", row.name);
    }
    for name in ["read", "socketcall", "getpid", "rseq"] {
        assert_eq!(rules(&profile, name), [(ALLOW, &Value::Null)]);
    }
    assert_eq!(weave(&Value::Object(profile.clone())), profile);

    let log = "SCMP_ACT_LOG";
    let base =
        json!({"defaultAction": log, "syscalls": [{"names": ["read", "stat"], "action": ERRNO}]});
    let profile = weave(&base);
    assert_eq!(profile["defaultAction"], ERRNO);
    assert_eq!(rules(&profile, "read"), [(ERRNO, &Value::Null)]);
    assert_eq!(rules(&profile, "stat"), [(ERRNO, &Value::Null)]);
    assert_eq!(rules(&profile, "write"), [(log, &Value::Null)]);
    assert_eq!(rules(&profile, "lstat"), [(NOTIFY, &Value::Null)]);

    let condition = json!([{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}]);
    let rule = json!({"names": ["socket"], "action": ERRNO, "args": condition});
    let profile = weave(&json!({"defaultAction": ALLOW, "syscalls": [rule]}));
    assert!(is_open(&profile));
}

#[test]
fn what_the_base_forbids_stays_forbidden_and_what_it_allows_is_notified() {
    let profile = oci(&json!({
        "defaultAction": ERRNO,
        "syscalls": [
            {"names": ["chown", "read", "io_uring_setup"], "action": ALLOW},
            {"names": ["lchown"], "action": ERRNO, "errnoRet": 1},
        ]
    }))
    .unwrap();
    let actions = |name| {
        rules(&profile, name)
            .into_iter()
            .map(|(action, _)| action)
            .collect::<Vec<_>>()
    };
    assert_eq!(actions("chown"), [NOTIFY, NOTIFY, ALLOW]);
    assert_eq!(actions("read"), [ALLOW]);
    assert_eq!(actions("lchown"), [ERRNO]);
    assert_eq!(actions("io_uring_setup"), [ERRNO]);
    // Not named, and the default is to refuse.
    assert_eq!(actions("fchown"), [""; 0]);
}

#[test]
fn conditions_of_the_base_hold_for_the_notifications_too() {
    let base = json!({
        "defaultAction": ERRNO,
        "archMap": [],
        "syscalls": [
            {"names": ["chroot"], "action": ALLOW, "args": [], "comment": "",
             "includes": {"caps": ["CAP_SYS_CHROOT"]}, "excludes": {}},
            {"names": ["setns"], "action": ALLOW, "args": [],
             "includes": {"caps": ["CAP_SYS_ADMIN"]}, "excludes": {}},
            {"names": ["clone"], "action": ALLOW,
             "args": [{"index": 0, "value": 2_114_060_288, "valueTwo": 0,
                       "op": "SCMP_CMP_MASKED_EQ"}],
             "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["stat"], "action": ALLOW, "includes": {"arches": ["s390"]}},
        ]
    });
    let profile = oci(&base).unwrap();
    assert_eq!(rules(&profile, "chroot"), [(NOTIFY, &Value::Null)]);
    assert_eq!(rules(&profile, "setns"), []);
    assert_eq!(rules(&profile, "stat"), []);
    assert_eq!(rules(&profile, "clone").len(), 1);
    assert_eq!(rules(&profile, "clone")[0].0, ALLOW);
    assert_eq!(profile.get("archMap"), None);

    let podman = weave(
        base.as_object().unwrap(),
        &request(Format::Podman, Runtime::Crun),
    )
    .unwrap();
    let setns = podman["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| rule["names"] == json!(["setns"]));
    assert_eq!(
        setns.unwrap()["includes"],
        json!({"caps": ["CAP_SYS_ADMIN"]})
    );
    assert!(podman.contains_key("archMap"));
}

#[test]
fn a_second_supervisor_and_what_is_no_profile_are_refused_in_words() {
    let other = json!({"defaultAction": ALLOW, "syscalls": [{"names": ["bpf"], "action": NOTIFY}]});
    assert!(oci(&other).unwrap_err().contains("one listener"));
    for (base, reason) in [
        (json!({}), "defaultAction"),
        (json!({"defaultAction": ALLOW, "syscalls": 3}), "not a list"),
        (
            json!({"defaultAction": ALLOW, "syscalls": [3]}),
            "not an object",
        ),
        (
            json!({"defaultAction": ALLOW, "syscalls": [{"action": ALLOW}]}),
            "names",
        ),
    ] {
        assert!(oci(&base).unwrap_err().contains(reason), "{base}");
    }
}

#[test]
fn weaving_twice_is_weaving_once() {
    let deny = json!({"defaultAction": ERRNO, "syscalls": [
        {"names": ["chown", "statx", "stat", "clone", "read"], "action": ALLOW},
        {"names": ["lchown"], "action": ERRNO},
    ]});
    for base in [deny.as_object().unwrap().clone(), allow_all()] {
        let request = request(Format::Oci, Runtime::Crun);
        let once = weave(&base, &request).unwrap();
        assert_eq!(weave(&once, &request).unwrap(), once);
    }
}

#[test]
fn calls_that_the_base_only_logs_are_notified_like_those_that_it_allows() {
    let log = "SCMP_ACT_LOG";
    let by_default = oci(&json!({"defaultAction": log})).unwrap();
    assert_eq!(rules(&by_default, "stat")[0].0, NOTIFY);
    let by_rule = oci(&json!({"defaultAction": ERRNO, "syscalls": [
        {"names": ["chown", "read"], "action": log},
    ]}))
    .unwrap();
    let actions = |name| {
        rules(&by_rule, name)
            .into_iter()
            .map(|(action, _)| action)
            .collect::<Vec<_>>()
    };
    assert_eq!(actions("chown"), [NOTIFY, NOTIFY, log]);
    assert_eq!(actions("read"), [log]);
}

/// Turning the fast path on and off again in one config.json leaves nothing of it.
#[test]
fn a_profile_has_no_trace_of_the_fast_path_that_is_off() {
    let base = json!({
        "defaultAction": ERRNO,
        "syscalls": [
            {"names": ["stat", "fstat", "statx", "prctl", "seccomp", "read"], "action": ALLOW},
            {"names": ["getxattr"], "action": ALLOW, "args": [
                {"index": 3, "value": 0, "op": "SCMP_CMP_EQ"}]},
        ],
    });
    let with = |base: &Map<String, Value>, is_fast, is_denied| {
        let request = Request {
            scope: Scope {
                is_fast,
                ..Scope::default()
            },
            is_denied,
            ..request(Format::Oci, Runtime::Crun)
        };
        weave(base, &request).unwrap()
    };
    for base in [base.as_object().unwrap(), &allow_all()] {
        for is_denied in [false, true] {
            let off = with(base, false, is_denied);
            assert!(
                !Value::Object(off.clone())
                    .to_string()
                    .contains(&MAGIC.to_string())
            );
            assert!(
                rules(&off, "seccomp")
                    .iter()
                    .all(|(action, _)| *action != NOTIFY)
            );
            let on = with(base, true, is_denied);
            assert!(
                rules(&on, "seccomp")
                    .iter()
                    .any(|(action, _)| *action == NOTIFY)
            );
            assert!(
                rules(&on, "statx")
                    .contains(&(NOTIFY, &json!([Comparison::IsNotMarked.to_json()])))
            );
            assert_eq!(with(&on, true, is_denied), on);
            // Rules of different calls may come in another order.
            let again = with(&off, true, is_denied);
            let back = with(&on, false, is_denied);
            for row in TABLE {
                let [on, off, again, back] =
                    [&on, &off, &again, &back].map(|profile| rules(profile, row.name));
                assert_eq!(again, on, "{}", row.name);
                assert_eq!(back, off, "{}", row.name);
            }
        }
    }
}

#[test]
fn a_profile_of_one_level_of_permissions_becomes_that_of_the_other() {
    let base = json!({
        "defaultAction": ERRNO,
        "syscalls": [
            {"names": ["open", "openat", "unlink", "chdir", "connect", "stat"], "action": ALLOW},
            {"names": ["rename"], "action": ERRNO, "errnoRet": 1},
        ],
    });
    for is_fast in [false, true] {
        for base in [base.as_object().unwrap(), &allow_all()] {
            let with = |base: &Map<String, Value>, permissions| {
                let request = Request {
                    scope: Scope {
                        is_fast,
                        permissions,
                    },
                    ..request(Format::Oci, Runtime::Crun)
                };
                weave(base, &request).unwrap()
            };
            let [full, owner] = [Permissions::Full, Permissions::Owner].map(|it| with(base, it));
            let is_notified = |profile, name| {
                let all = rules(profile, name);
                all.iter().any(|(action, _)| *action == NOTIFY)
            };
            assert!(is_notified(&full, "chdir") && !is_notified(&owner, "chdir"));
            assert!(is_notified(&full, "openat") && is_notified(&owner, "openat"));
            let again = [
                with(&owner, Permissions::Full),
                with(&full, Permissions::Owner),
            ];
            for row in TABLE {
                let [full, owner] = [&full, &owner].map(|profile| rules(profile, row.name));
                let [to_full, to_owner] = again.each_ref().map(|profile| rules(profile, row.name));
                assert_eq!(to_full, full, "{}", row.name);
                assert_eq!(to_owner, owner, "{}", row.name);
            }
        }
    }
}
