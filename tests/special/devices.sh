# shellcheck shell=bash
# Devices that the machine has drivers for; none is opened.
mknod null c 1 3
mknod disk b 259 1048575
mknod -m 640 tty c 4 64
chown 1:5 null
chmod 666 null
ln null hard
mv disk moved
mkdir copies out
cp -a null moved copies
tar -cf all.tar null moved tty
tar -C out -xpf all.tar
rsync -aD out/ synced/
rm tty
touch tty
test -c null
test -b moved
tar --numeric-owner -tvf all.tar | awk '{ print $1, $2, $3, $6 }'
rm all.tar
stat -c '%n %F %t:%T %u:%g %a %h' null hard moved tty copies/* out/* synced/*
