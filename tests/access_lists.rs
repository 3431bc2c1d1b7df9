//! Access control lists: they name users and groups of all ids, and what is wrong with one is said as
//! the kernel says it.

mod common;

use common::real::compare;

#[test]
fn access_control_lists_name_users_and_groups_of_all_ids() {
    let seen = compare(include_str!("access_lists/ids.sh"));
    assert!(seen.contains("group:4000000000:rwx\n"), "{seen}");
}

#[test]
fn access_control_lists_name_whomever_they_like() {
    let seen = compare(include_str!("access_lists/copies.sh"));
    assert!(seen.contains("default:user:123456:rwx"), "{seen}");
}

#[test]
fn what_is_made_in_a_directory_takes_its_default_access_control_list() {
    compare(
        "mkdir d; setfacl -d -m u:1:rw,u:70000:r,g:4000000000:rwx,u:0:x d
        touch d/file; mkdir d/sub; mkfifo d/fifo; mknod d/device c 510 1; make_socket d/socket
        ln -s x d/link
        (umask 077; touch d/masked; mkdir d/sub/masked); mkdir -m 700 d/own
        install -m 640 /etc/passwd d/installed; cp /etc/passwd d/copied
        mkdir -p d/sub/a/b; touch d/sub/a/b/file; list d
        setfacl -d -m u:70000:rwx d/sub; touch d/sub/other; setfacl -k d/sub; touch d/sub/none
        list d/sub
        touch /dev/shm/f; mv /dev/shm/f d/moved; ln d/sub/none d/hard; list d; cp -a d copy
        cp -r d copy2; mkdir e; cp d/file e; list copy2 e",
    );
}

#[test]
fn fifos_sockets_and_devices_have_access_control_lists() {
    compare(
        "mkfifo fifo; mknod device c 510 1; make_socket socket; mknod block b 8 1; chown 70000:5 *
        for file in *; do
            setfacl -m u:0:rw $file; list $file; setfacl -m u:70000:rw,g:4000000000:r $file
            list $file; chmod 604 $file; list $file
            setfacl -x u:70000 $file; list $file; cp -a $file copy-$file
            rsync -aAXD $file rsync-$file
        done
        list .; setfacl -b *; list .",
    );
}

#[test]
fn access_control_lists_that_are_wrong_are_refused() {
    // acl(5): the entries in order; a mask where users or groups are named; one of each.
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut value = String::from("0x02000000");
        for (tag, permissions, id) in entries {
            let bytes = [
                &tag.to_le_bytes()[..],
                &permissions.to_le_bytes(),
                &id.to_le_bytes(),
            ];
            for byte in bytes.concat() {
                value += &format!("{byte:02x}");
            }
        }
        value
    };
    const NONE: u32 = u32::MAX;
    let (user_obj, user, group_obj) = ((1, 6, NONE), (2, 4, 70_000), (4, 4, NONE));
    let (group, mask, other) = ((8, 5, 80_000), (0x10, 7, NONE), (0x20, 4, NONE));
    let lists = [
        acl(&[user_obj, user, group_obj, group, mask, other]),
        acl(&[user_obj, user, group_obj, other]),
        acl(&[user_obj, group_obj, group, other]),
        acl(&[user_obj, group_obj, user, mask, other]),
        acl(&[user, user_obj, group_obj, mask, other]),
        acl(&[user_obj, user, group_obj, mask]),
        acl(&[user_obj, user, mask, other]),
        acl(&[user, group_obj, mask, other]),
        acl(&[user_obj, user, group_obj, mask, mask, other]),
        acl(&[user_obj, user, user, group_obj, mask, other]),
        acl(&[user_obj, (2, 7, 80_000), user, group_obj, mask, other]),
        acl(&[user_obj, (2, 8, 70_000), group_obj, mask, other]),
        acl(&[user_obj, (2, 4, NONE), user, group_obj, mask, other]),
        acl(&[user_obj, user, group_obj, (0x40, 7, 5), mask, other]),
        acl(&[user_obj, user, group_obj, mask, other, group]),
        acl(&[(1, 6, 5), user, (4, 4, 5), (0x10, 7, 5), (0x20, 4, 5)]),
        acl(&[(1, 6, 5), (4, 4, 5), (0x20, 4, 5)]),
        acl(&[user]),
        acl(&[]),
    ];
    let script = lists.map(|list| {
        format!(
            "echo {list}; for file in file directory link; do
                for name in access default; do
                    try setfattr -h -n system.posix_acl_$name -v {list} $file
                done
            done; list file directory
            for name in access default; do
                for file in file directory
                do setfattr -x system.posix_acl_$name $file 2>/dev/null || true; done
            done
            chmod 755 file directory\n"
        )
    });
    compare(&format!(
        "echo >file; mkdir directory; ln -s file link; {}",
        script.concat()
    ));
}

#[test]
fn an_access_control_list_stays_when_another_one_is_refused() {
    compare(include_str!("access_lists/refused.sh"));
}
