# shellcheck shell=bash
# The devices that every container has, made anew, and opened in all ways.
mknod null c 1 3; mknod zero c 1 5; mknod full c 1 7; mknod random c 1 8; mknod urandom c 1 9; mknod tty c 5 0
mknod -m 666 other c 510 1; mknod block b 509 3
chmod 666 null zero full random urandom tty
ln -s null link; ln zero hard
for file in null zero full random urandom link hard other block; do
    echo "$file"
    try head -c 5 $file >read; tr '\0-\377' x <read; echo
    try sh -c "echo one >$file"; try sh -c "echo one >>$file"; try sh -c "exec 3<>$file; echo two >&3"
    try dd status=none count=1 bs=3 of=$file if=/dev/zero
    perl -MFcntl -e 'foreach $flags (O_RDONLY, O_WRONLY, O_RDWR, O_CREAT | O_RDWR, O_CREAT | O_EXCL | O_RDWR,
            O_TRUNC | O_WRONLY, O_NONBLOCK, O_DIRECTORY, O_NOFOLLOW, O_CREAT | O_NOFOLLOW | O_RDWR) {
        sysopen(F, $ARGV[0], $flags) ? printf("opened %o %x\n", (stat F)[2], (stat F)[6]) : print "$flags $!\n" }' ./$file
done
# The mode of the new one decides.
chmod 600 null; chmod 640 zero; chown 0:77 zero
for mode in '<' '>' '<>' '>>'; do
    for file in null zero full; do
        try setpriv --reuid 5 --regid 77 --clear-groups sh -c "exec 3$mode$file && echo $mode$file"
    done
done
mkdir nodev; mount -t tmpfs -o nodev none nodev; mknod -m 666 nodev/null c 1 3
try cat nodev/null; try sh -c 'echo >nodev/null'
umount nodev
mkdir root; mknod root/null c 1 3; readarray -t files < <(ldd /bin/sh | grep -o '/[^ ]*')
cp -L --parents /bin/sh "${files[@]}" root; chroot root /bin/sh -c 'echo text >/null && echo written'
rm -r root read
try setsid --wait sh -c 'exec 3>tty'; try setsid --wait sh -c 'exec 3<tty'
script -qec 'exec 3<>tty && echo to the terminal >&3; test -t 3 && echo it is one; echo of a child | sh -c "cat >tty"' /dev/null </dev/null
