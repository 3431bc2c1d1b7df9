# shellcheck shell=bash
# Functions for scripts with an overlay of lower and upper at merged.
make_some() {
    mkdir -p "$1/d"
    echo 1 >"$1/f"
    ln -s f "$1/l"
    mkfifo "$1/p"
    mknod "$1/c" c 510 7
    mknod "$1/b" b 510 8
    make_socket "$1/s"
    ln -P "$1/l" "$1/d/l2"
}
mount_overlay() {
    mount -t overlay -o "lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/workdir,userxattr" overlay merged
}
# Of the number of links a directory on an overlay says nothing, and of its layers it tells root more than others.
show() { list "${@:-merged}" | sed '/^d/s/ [0-9]* / - /' | grep -v '^user\.overlay\.'; }
again() {
    umount merged
    mount_overlay
}
# What is there when the overlay is gone. (Its own directory is nobody's business.)
finish() {
    show
    again
    show
    umount merged
    rm -rf workdir
    for name in impure origin uuid; do
        find upper \( -type f -o -type d \) -exec setfattr -x user.overlay.$name {} \; 2>/dev/null
    done
}
mkdir lower upper workdir merged
