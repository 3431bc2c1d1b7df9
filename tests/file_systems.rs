//! Root file systems on the file systems that the kernel has, and on those of FUSE: owners of all
//! types of inodes are those of real root there, also when the disk has got another number.

mod common;

use std::fs;

use common::file_system::{Disk, Mounted, kernel_has};
use common::real::{bash, compare_in, compare_until_boot, reboot};
use common::{Daemon, Pair, Place, User, assert_same_lines, debian_owners, debian_tar, run, sh};

/// Sets owners, and moves and removes what has them.
const SCRIPT: &str = r"LARGEST='511 262143'; make_tree
    touch tree/closed; chown 33:44 tree/closed; chmod 0 tree/closed
    list tree; ls -ln tree tree/a | awk '{ print $1, $3, $4 }'
    find tree -user 300 -o -uid +65536 | sort; tar -cf - tree | tar -tvf - | awk '{ print $1, $2 }'
    cp -a tree copy; rm copy/socket; list copy; mv copy/a copy/c/moved; mv copy/fifo copy/c/renamed
    ln copy/char copy/second; list copy
    mkdir lists; setfacl -d -m u:1:rw,u:70000:r lists; touch lists/file; mkfifo lists/fifo
    setfacl -m g:4000000000:rwx tree/closed tree/fifo; list lists tree/closed tree/fifo
    mkdir debian; tar -C debian --numeric-owner -xpf /debian.tar ./etc ./var ./usr/bin ./usr/sbin
    chown -R -h 7:8 debian/usr/sbin; list debian
    ";

/// Removes what has an owner, and makes something else, which may get the number of its inode.
const REUSE: &str = r"for n in 1 2 3 4 5 6 7 8 9; do
        for make in 'ln -s x' mkfifo touch mkdir make_socket; do
            $make new; chown -h 5:6 new; stat -c %u:%g new; rm -r new; $make new
            stat -c %u:%g new; rm -r new
        done
    done";

/// Two Debians on the file system that is on top, which is mounted at `bundles`.
fn pair<'a>(place: &'a Place, daemon: &Daemon) -> Pair<'a> {
    let tar = debian_tar();
    Pair::real(place, daemon).with(|bundle| bundle.with_mount(&tar, "/debian.tar", &["bind", "ro"]))
}

/// What real root sees and what we see of what `script` makes is the same, and stays so when the
/// disks are others to the kernel. `mounted` are mounted, the last one at `bundles`.
#[track_caller]
fn compare_on(pair: &Pair, disks: &[(Disk, &str)], mounted: Vec<Mounted>, script: &str) {
    let place = pair.ours.place;
    let daemon = Daemon::start(place);
    compare_in(pair, daemon, "/work", script);
    let numbers: Vec<u64> = mounted.iter().map(Mounted::number).collect();
    mounted.into_iter().rev().for_each(Mounted::unmount);
    let again = disks.iter().zip(numbers);
    let mounted: Vec<_> = again
        .map(|((disk, name), number)| disk.mount_but_at(name, number))
        .collect();
    let daemon = Daemon::start(place);
    let listed = bash(&pair.oracle, "list /work");
    assert_same_lines(&listed, &bash(&pair.ours, "list /work"));
    let daemon = reboot(place, daemon);
    assert_same_lines(&listed, &bash(&pair.ours, "list /work"));
    daemon.terminate();
    drop(mounted);
}

#[track_caller]
fn is_like_any_other<'a>(place: &'a Place, disks: &[(Disk<'a>, &str)]) {
    let mounted = disks.iter().map(|(disk, name)| disk.mount(name)).collect();
    let daemon = Daemon::start(place);
    let pair = pair(place, &daemon);
    daemon.terminate();
    compare_on(&pair, disks, mounted, &[SCRIPT, REUSE].concat());
}

#[test]
fn ext4_keeps_owners() {
    let place = Place::new();
    is_like_any_other(&place, &[(Disk::ext4(&place), "bundles")]);
}

#[test]
fn xfs_keeps_owners() {
    if !kernel_has("xfs") {
        return;
    }
    let place = Place::new();
    is_like_any_other(&place, &[(Disk::xfs(&place), "bundles")]);
}

#[test]
fn btrfs_keeps_owners() {
    if !kernel_has("btrfs") {
        return;
    }
    let place = Place::new();
    is_like_any_other(&place, &[(Disk::btrfs(&place), "bundles")]);
}

const OVERLAY: &str = "D=${1%/*}; mkdir -p $D/lower $D/layers/upper $D/layers/work; \
    mount -t overlay -o lowerdir=$D/lower,upperdir=$D/layers/upper,workdir=$D/layers/work none $1";

#[test]
fn an_overlay_keeps_owners() {
    let place = Place::new();
    is_like_any_other(&place, &[(Disk::new(&place, OVERLAY), "bundles")]);
}

#[test]
fn an_overlay_on_xfs_keeps_owners() {
    if !kernel_has("xfs") {
        return;
    }
    let place = Place::new();
    let disks = [
        (Disk::xfs(&place), "layers"),
        (Disk::new(&place, OVERLAY), "bundles"),
    ];
    is_like_any_other(&place, &disks);
}

/// With what has been made on the disk of the place in a file system that is read only, below an
/// overlay.
#[track_caller]
fn read_only_is_like_any_other(make: &str, mount: &str) {
    // What has an owner in the side store, and what stands for a device, is another file in the
    // image.
    const MADE: &str = "LARGEST='511 262143'; mkdir /work; cd /work; make_tree; touch tree/closed
        chown 33:44 tree/closed; chmod 0 tree/closed
        rm tree/{char,block,large,a/char,c/larger,c/odd}; find tree ! -type f ! -type d -exec chown -h 0:0 {} +";
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = pair(&place, &daemon);
    let made = format!("{}{MADE}", debian_owners());
    bash(&pair.oracle, &made);
    bash(&pair.ours, &made);
    daemon.terminate();
    let mut command = place.as_root("sh");
    let bundles = place.path("bundles");
    let image = place.path("image");
    run(command.args(["-euc", make, "sh"]).args([&bundles, &image])).ok();
    let disks = [
        (
            Disk::new(&place, &format!("DISK={}; {mount}", image.display())),
            "lower",
        ),
        (Disk::new(&place, OVERLAY), "bundles"),
    ];
    let mounted = disks.iter().map(|(disk, name)| disk.mount(name)).collect();
    let script = r"chown -R -h 9:10 /usr/sbin; chmod 640 /etc/passwd; touch -h -d @1 /bin/sh
        chown -h 77:78 tree/a/link tree/fifo tree/closed; mv tree/a tree/c/moved; list tree
        list /etc /usr/bin";
    compare_on(&pair, &disks, mounted, script);
}

#[test]
fn a_squashfs_below_an_overlay_keeps_owners() {
    if !kernel_has("squashfs") {
        return;
    }
    read_only_is_like_any_other(
        "mksquashfs $1 $2 -quiet -no-progress -noI -noD -noF -noX",
        "mount -t squashfs -o loop $DISK $1",
    );
}

#[test]
fn an_erofs_below_an_overlay_keeps_owners() {
    if !kernel_has("erofs") {
        return;
    }
    read_only_is_like_any_other(
        "mkfs.erofs --quiet $2 $1 >&2",
        "mount -t erofs -o loop $DISK $1",
    );
}

/// On a file system that is gone with the boot.
#[track_caller]
fn is_like_any_other_until_boot(place: &Place, mount: &str, script: &str) {
    let disk = Disk::new(place, mount);
    let mounted = disk.mount("bundles");
    let daemon = Daemon::start(place);
    let pair = pair(place, &daemon);
    let (_, daemon) = compare_until_boot(&pair, daemon, "/work", script);
    daemon.terminate();
    drop(mounted);
}

#[test]
fn tmpfs_keeps_owners_while_it_is_there() {
    let script = [SCRIPT, REUSE].concat();
    is_like_any_other_until_boot(&Place::new(), "mount -t tmpfs none $1", &script);
}

/// For file systems of FUSE: bindfs answers EIO for the largest ids, also to real root, and what
/// servers make of access control lists is their own affair.
fn script_for_fuse() -> String {
    let chown = r"chown() { command chown ${*//4294967294/4294967}; }";
    format!("{chown}\n{}", SCRIPT.replace("setfacl", ": setfacl"))
}

/// Its caches show link counts and modes of a second ago, also to real root.
const BINDFS: &str = "mkdir -p ${1%/*}/below
    bindfs -o allow_other,attr_timeout=0,entry_timeout=0 OPTIONS ${1%/*}/below $1";

#[test]
fn fuse_with_attributes_keeps_owners_while_it_is_mounted() {
    let mount = BINDFS.replace("OPTIONS", "");
    is_like_any_other_until_boot(&Place::new(), &mount, &script_for_fuse());
}

#[test]
fn fuse_overlayfs_keeps_owners_while_it_is_mounted() {
    let mount = OVERLAY.replace("mount -t overlay -o ", "fuse-overlayfs -o allow_other,");
    let mount = mount.replace(" none ", " ");
    is_like_any_other_until_boot(&Place::new(), &mount, &script_for_fuse());
}

#[test]
fn fuse_without_attributes_keeps_owners_while_it_is_mounted() {
    let mount = BINDFS.replace("OPTIONS", "--xattr-none");
    is_like_any_other_until_boot(&Place::new(), &mount, &script_for_fuse());
}

/// With what is made on a disk that belongs to the user: its listing of `f d l`.
fn made(place: &Place, directory: &str) -> String {
    let script =
        "touch f; mkdir d; ln -s x l; mkfifo p; chown -h 5:6 f d l p; stat -c %u:%g f d l p";
    below(place, directory, script)
}

/// What `script` prints below `subuidless run`, in a directory of the place.
#[track_caller]
fn below(place: &Place, directory: &str, script: &str) -> String {
    let directory = place.path(directory).display().to_string();
    sh(
        place,
        &format!("cd {directory}; subuidless run -- sh -euc '{script}'"),
    )
    .ok()
}

const LOOK: &str = "stat -c %u:%g f d l p";
const KEPT: &str = "5:6\n5:6\n5:6\n5:6\n";
const NONE: &str = "0:0\n0:0\n0:0\n0:0\n";

type Make = for<'a> fn(&'a Place) -> Disk<'a>;
const MAKES: [(&str, Make); 3] = [
    ("ext4", |place| Disk::ext4(place)),
    ("xfs", |place| Disk::xfs(place)),
    ("btrfs", |place| Disk::btrfs(place)),
];

/// A disk has the owners of its own files, whichever number it has, and whichever disk had the
/// number before.
#[test]
fn owners_go_with_the_disk_and_not_with_its_number() {
    let place = Place::new();
    for (kind, make) in MAKES {
        if !kernel_has(kind) {
            continue;
        }
        let [one, other] = [0; 2].map(|_| make(&place));
        let first = one.mount("a");
        let number = first.number();
        assert_eq!(made(&place, "a"), KEPT);
        first.unmount();
        let second = other.mount("a");
        let new = "touch f; mkdir d; ln -s x l; mkfifo p; stat -c %u:%g f d l p";
        assert_eq!(below(&place, "a", new), NONE);
        let moved = one.mount_but_at("b", number);
        assert_eq!(below(&place, "b", LOOK), KEPT);
        assert_eq!(below(&place, "a", LOOK), NONE);
        // `owners gc` tells them apart, too.
        let both = "subuidless owners gc $PWD/a | head -n1; subuidless owners gc $PWD/b | head -n1
            subuidless owners gc --missing $PWD/a | head -n1";
        let both = sh(&place, &format!("cd ..; {both}")).ok();
        assert!(
            both.lines().all(|line| line.contains(", 0 removed, ")),
            "{both}"
        );
        assert_eq!(below(&place, "b", LOOK), KEPT);
        drop((second, moved));
    }
}

/// XFS gives the number of a removed inode to the next one: of those that it has freed, which it does
/// some time after the removal (`xfs_inodegc_worker`), and before it is unmounted.
#[test]
fn owners_gc_removes_what_has_been_replaced_on_xfs() {
    if !kernel_has("xfs") {
        return;
    }
    let place = Place::new();
    let disk = Disk::xfs(&place);
    let mounted = disk.mount("a");
    let make = "for n in 1 2 3 4 5 6 7 8; do ln -s x $n; done; stat -c %u:%g * | uniq";
    let give = |owner: &str| format!("chown -h {owner} *; stat -c %u:%g * | uniq");
    let script = format!("{make}; {}; rm *", give("5:6"));
    assert_eq!(below(&place, "a", &script), "0:0\n5:6\n");
    mounted.unmount();
    let mounted = disk.mount("a");
    let script = format!("{make}; {}", give("7:8"));
    assert_eq!(below(&place, "a", &script), "0:0\n7:8\n");
    let swept = sh(&place, "subuidless owners gc $PWD/../a").ok();
    // Three keys of each inode.
    assert!(
        swept.starts_with("48 entries, 24 removed, 24 kept\n"),
        "{swept}"
    );
    assert_eq!(below(&place, "a", "stat -c %u:%g * | uniq"), "7:8\n");
    drop(mounted);
}

/// A copy of a disk has the same id, and the same inodes: what it shows of symbolic links and the
/// like is what either of them has been given last.
#[test]
fn a_copy_of_a_disk_has_the_owners_of_the_disk() {
    let place = Place::new();
    // btrfs mounts no second disk with the same id.
    for (kind, make) in &MAKES[..2] {
        if !kernel_has(kind) {
            continue;
        }
        let one = make(&place);
        let first = one.mount("a");
        assert_eq!(made(&place, "a"), KEPT);
        first.unmount();
        let copy = one.copy();
        let mounted = [one.mount("a"), copy.mount("b")];
        assert_eq!(below(&place, "b", LOOK), KEPT);
        below(&place, "a", "chown -h 7:8 f d l p");
        assert_eq!(below(&place, "a", LOOK), "7:8\n7:8\n7:8\n7:8\n");
        assert_eq!(below(&place, "b", LOOK), "5:6\n5:6\n7:8\n7:8\n");
        drop(mounted);
    }
}

/// All of them have the id 0, and number their files from 1 on.
#[test]
fn file_systems_of_fuse_have_owners_of_their_own() {
    let place = Place::new();
    let bind = |name: &str| {
        let mount = format!("mkdir -p ${{1%/*}}/{name}; bindfs -o allow_other ${{1%/*}}/{name} $1");
        Disk::new(&place, &mount)
    };
    let one = bind("one");
    let mounted = [one.mount("a"), bind("other").mount("b")];
    assert_eq!(made(&place, "a"), KEPT);
    let new = "touch f; mkdir d; ln -s x l; mkfifo p; stat -c %u:%g f d l p";
    assert_eq!(below(&place, "b", new), NONE);
    assert_eq!(below(&place, "a", LOOK), KEPT);
    drop(mounted);
}

/// The device number of a mount goes to the next one, and both may number their files in the same
/// way: in a new tmpfs the first file is always the same.
#[test]
fn a_mount_of_fuse_has_not_the_owners_of_the_one_before() {
    let place = Place::new();
    let connections = "mountpoint -q /sys/fs/fuse/connections ||
        mount -t fusectl none /sys/fs/fuse/connections";
    let mount = format!(
        "{connections}; D=${{1%/*}}/below; mkdir -p $D; umount $D 2>/dev/null || :
        mount -t tmpfs none $D; chown {}:{} $D; bindfs -o allow_other $D $1",
        place.user.uid, place.user.gid
    );
    let disk = Disk::new(&place, &mount);
    let first = disk.mount("a");
    let number = first.number();
    assert_eq!(made(&place, "a"), KEPT);
    let mut next = first;
    // Others may have taken the number.
    for _ in 0..20 {
        next.unmount();
        next = disk.mount("a");
        if next.number() == number {
            break;
        }
    }
    let new = "touch f; mkdir d; ln -s x l; mkfifo p; stat -c %u:%g f d l p";
    assert_eq!(below(&place, "a", new), NONE);
    drop(next);
}

/// In a virtual machine (`scripts/test --vm 6.1 -- file_systems`): these kernels have an NFS server.
/// Version 4.2 has attributes if both sides know them (RFC 8276), 4.0 has none.
#[test]
fn nfs_keeps_owners() {
    if !kernel_has("nfsd") || !kernel_has("nfs4") {
        return;
    }
    let place = Place::new();
    let served = place.path("served");
    fs::create_dir(&served).expect("a directory to be served");
    place.give_to_user(&served);
    let serve = r"D=$1; mkdir -p /run/rpc_pipefs /run/rpcbind /var/lib/nfs/v4recovery
        mountpoint -q /proc/fs/nfsd || mount -t nfsd none /proc/fs/nfsd
        : >>/var/lib/nfs/etab; : >>/var/lib/nfs/rmtab
        pidof rpcbind >/dev/null || rpcbind -w
        rpc.mountd >&2
        exportfs -o rw,root_squash,no_subtree_check,insecure,fsid=7 127.0.0.1:$D
        rpc.nfsd -V 3 -G 10 -L 10 4";
    run(place.as_root("sh").args(["-euc", serve, "sh"]).arg(&served)).ok();
    // Linux has file handles of NFS but of 4.0, where a file is its number.
    for (options, has_handles) in [
        ("vers=4.2", true),
        ("vers=4.1", true),
        ("vers=4.0", false),
        ("vers=3,nolock", true),
    ] {
        let mount = format!("mount -t nfs -o {options} 127.0.0.1:${{1%/*}}/served $1");
        let disk = Disk::new(&place, &mount);
        let mounted = disk.mount("a");
        let number = mounted.number();
        assert_eq!(made(&place, "a"), KEPT, "{options}");
        let more = "mv l m; mv f g; ln g f; ln -s x l; chown -h 7:8 l; stat -c %u:%g m g f l";
        assert_eq!(
            below(&place, "a", more),
            "5:6\n5:6\n5:6\n7:8\n",
            "{options}"
        );
        let new = "rm l; ln -s x l; rm p; mkfifo p; touch new; stat -c %u:%g l p new";
        let shown = below(&place, "a", new);
        assert!(!has_handles || shown == "0:0\n0:0\n0:0\n", "{shown}");
        // Whether they are in the files.
        let found = sh(
            &place,
            "getfattr -n user.rootlesscontainers ../a/d >/dev/null 2>&1",
        )
        .status;
        assert_eq!(found.success(), options == "vers=4.2", "{options}");
        mounted.unmount();
        let mounted = disk.mount_but_at("a", number);
        let look = "stat -c %u:%g m g f d l p; rm -r m g f d l p new";
        let kept = match has_handles {
            true => KEPT,
            false => NONE,
        };
        let kept = format!("{kept}0:0\n0:0\n");
        assert_eq!(below(&place, "a", look), kept, "{options}");
        mounted.unmount();
    }
    let stop = "rpc.nfsd 0; exportfs -ua; kill $(pidof rpc.mountd)";
    run(place.as_root("sh").args(["-euc", stop])).ok();
}

/// In a virtual machine, too. FAT gives all files to one user, and refuses others also to root.
#[test]
fn fat_refuses_owners_as_it_does_to_real_root() {
    for (kind, make) in [("vfat", "mkfs.vfat -F 32"), ("exfat", "mkfs.exfat")] {
        if !kernel_has(kind) {
            continue;
        }
        let place = Place::new();
        let User { uid, gid } = place.user;
        let disk = |uid: u32, gid: u32| {
            let mount = format!("mount -t {kind} -o loop,umask=0,uid={uid},gid={gid} $DISK $1");
            Disk::in_file(&place, make, &mount)
        };
        let mounted = [
            disk(0, 0).mount_for_root("real"),
            disk(uid.as_raw(), gid.as_raw()).mount("ours"),
        ];
        let script = "set +e; touch f; mkdir d; for o in 5:6 5 :6 0:0; do chown $o f d; done 2>&1
            stat -c %u:%g f d; ln -s x l 2>&1; mkfifo p 2>&1; setpriv --reuid 5 touch n
            stat -c %u:%g n; mv f g; stat -c %u:%g g";
        let mut real = place.as_root("sh");
        real.args(["-uc", script]).current_dir(place.path("real"));
        assert_same_lines(
            &run(&mut real).stdout,
            below(&place, "ours", script).as_bytes(),
        );
        drop(mounted);
    }
}
