# shellcheck shell=bash
# Links, fifos, sockets and devices: made, changed, moved, replaced, removed.
make_tree
list tree
echo - seen
ls -ln tree tree/* | awk '$1 != "total" { print $1, $2, $3, $4, $5, $6, $NF }'
stat -c '%n %F %u:%g %a %t:%T %Hr:%Lr' tree/* tree/*/*
stat -L -c '%n %F' tree/a/link
# In this order: a directory has no place for the type of a device's placeholder.
find tree -printf '%M %y %Y %U:%G %p\n' | LC_ALL=C sort
for path in tree/* tree/*/*; do
    for what in b c d e f h p r s S w x u g k O G N; do
        if test -$what "$path"; then echo -n "$what "; fi
    done
    echo "$path"
done
test tree/char -ef tree/a/char && ! test tree/char -ef tree/block && echo the same

echo - changed
chown 5:6 tree/c/odd; list tree/c/odd
chmod u=rwx,g=,o= tree/c/odd; list tree/c/odd
chmod 7777 tree/block tree/fifo tree/socket; list tree/block tree/fifo tree/socket
chown 8 tree/block tree/socket; chown :9 tree/fifo; list tree/block tree/fifo tree/socket
chown :9 tree/char; chown 8 tree/char; list tree/char
chown --from=8:9 10:11 tree/char; chown --from=8:9 1:1 tree/char; list tree/char tree/a/char
chown --reference=tree/large tree/char; list tree/char
chgrp -h 12 tree/a/link; chown -h 0:0 tree/dangling; list tree/a/link tree/dangling
chown 13:14 tree/a/link; list tree/a
touch -h -d @5 tree/a/link tree/char tree/fifo tree/socket
stat -c '%n %Y %u:%g %F' tree/a/link tree/char tree/fifo tree/socket

echo - linked
ln tree/fifo tree/fifo2; ln tree/socket tree/c/socket2; ln tree/block tree/a/b/block2
ln -P tree/a/link tree/link2
chown 21:22 tree/a/char; chown 23:24 tree/fifo2; chown -h 25:26 tree/link2; chown 27:28 tree/socket
chmod 640 tree/a/b/block2
list tree
rm tree/char tree/fifo tree/socket tree/block tree/a/link; list tree
ln tree/a/char tree/char; list tree/char

echo - moved
mkdir -p other/deep; mv tree/char other/renamed; mv tree/c/socket2 other; mv tree/link2 other/deep
mv tree/a other/a; list tree other
mv other/a/b/block2 tree/block; mv other/deep/link2 tree/link; list tree other

echo - overwritten
mkfifo over; chown 31:32 over; mv -f over tree/fifo2; list tree/fifo2
mknod n1 c 5 5; mknod n2 c 6 6; chown 41:41 n1; chown 42:42 n2; mv -f n1 n2; list n2
echo x >file; chown 43:43 file; mv -f file n2; list n2
mv -T n2 tree/large; list tree/large
mkfifo n3; mv -f n3 tree/large; list tree/large
ln -s x n4; chown -h 44:44 n4; mv -fT n4 tree/large; list tree/large
ln -sf y tree/large; list tree/large
mknod n5 b 8 1; mv -f n5 tree/block; list tree/block

echo - anew
for n in 1 2 3 4 5; do
    mknod n c 7 $n; chown $n:$n n; rm n; : >n; list n; rm n
    mkfifo n; list n; chown 9:$n n; rm n
    ln -s x n; list n; chown -h 8:$n n; rm n
    mknod n b 8 $n; list n; chown 3:3 n; rm n
    make_socket n; list n; rm n
    mknod n c 1 $n; list n; rm n; mkdir n; list n; rmdir n
done
rm -r other; mkdir other; make_socket other/s; mkfifo other/p; ln -s x other/l; mknod other/c c 9 9
list other
try mknod other/c c 1 1; try mknod nowhere/c c 1 1; try mknod other/c/x c 1 1; try mkfifo other/c
list other
