# shellcheck shell=bash
# Functions for scripts that run as real root and under subuidless, put before each of them.

# Everything that inodes have, for what lies below directories. (The size of a directory is the file system's affair, and so
# is the second form in which XFS shows access control lists.)
list() {
    find "$@" -print0 | LC_ALL=C sort -z | xargs -0r stat -c '%A %u:%g %h %t:%T %s %N' |
        sed '/^d/s/^\(\([^ ]* \)\{4\}\)[0-9]*/\1-/'
    find "$@" -print0 | LC_ALL=C sort -z | xargs -0r getfattr -h -d -m - -e hex --absolute-names 2>&1 |
        grep -v '^trusted.SGI_ACL_' || :
    find "$@" ! -type l -print0 | LC_ALL=C sort -z | xargs -0r getfacl -n -s -p 2>&1
}

# Tells what becomes of a command that may fail.
try() {
    local status=0
    "$@" 2>&1 || status=$?
    if ((status)); then echo "$1: status $status"; fi
}

make_socket() {
    perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, pack_sockaddr_un($ARGV[0])) or die $!' "$1"
}

# Every type of inode, with odd owners, modes, numbers and hard links. $LARGEST: of a device, where not all are possible.
make_tree() {
    mkdir -p tree/a/b tree/c
    echo one >tree/a/one
    echo two >tree/a/b/two
    ln -s one tree/a/link
    ln -s /nowhere tree/dangling
    mkfifo tree/fifo tree/c/pipe
    mknod -m 640 tree/char c 1 3
    mknod -m 660 tree/block b 8 17
    mknod tree/large c ${LARGEST:-511 1048575}
    mknod tree/c/larger b ${LARGEST:-4095 1048575}
    mknod -m 711 tree/c/odd c 259 256
    make_socket tree/socket
    chown 100:200 tree/fifo tree/a/one
    chown -h 300:400 tree/a/link
    chown -h daemon:mail tree/dangling
    chown 1:5 tree/char
    chown 0:6 tree/block
    chown 77:78 tree/socket
    chown 100000:200000 tree/large
    chown 4294967294:4294967294 tree/c/pipe
    chmod 600 tree/large
    chmod 1777 tree/c
    chown 70000:70000 tree/c
    chmod 6755 tree/c/odd
    ln tree/char tree/a/char
    ln -P tree/dangling tree/c/dangling
    ln tree/c/pipe tree/a/b/pipe
    find tree -exec touch -h -d '2020-02-02 02:02:02 UTC' {} +
}
