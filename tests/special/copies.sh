# shellcheck shell=bash
# What copies and packs inodes of all types: the copies are like the originals.
make_tree
mkdir cp tar

echo - cp
cp -a tree cp/archive; cp -rP tree cp/recursive; cp -rP --preserve=ownership tree cp/owners
cp -rP --preserve=mode tree cp/modes
cp -rlP tree cp/links; cp -a --attributes-only tree cp/attributes; cp -d tree/dangling cp/dangling
cp -P tree/a/link cp/link
cp -au tree cp/archive; cp -a --remove-destination tree/. cp/archive
cp -aT --backup=numbered tree cp/owners
list cp

echo - mv
mv cp/archive /dev/shm/moved; list /dev/shm/moved; cp -a /dev/shm/moved back
mv /dev/shm/moved cp/archive; list back cp/archive
install -d -o 5 -g 6 -m 2750 installed; install -o 70000 -g 80000 -m 4711 tree/a/one installed
list installed

echo - tar
tar --sort=name -cf tree.tar tree
tar --numeric-owner -tvf tree.tar
tar -tvf tree.tar
for options in -xpf -xf '--numeric-owner -xpf' '--no-same-owner -xpf' '--no-same-permissions -xf' '--same-owner --overwrite -xf'
do
    mkdir "tar/$options"
    # Twice: the second time over what is there.
    # shellcheck disable=SC2086
    for _ in 1 2; do tar -C "tar/$options" $options tree.tar; done
done
tar -df tree.tar && echo no difference
mkdir posix; tar -C tree --format=posix -cf - . | tar -C posix -xpf -
mkdir incremental; tar -C tree -g /tmp/list -cf /tmp/tar .
tar -C incremental -g /dev/null -xpf /tmp/tar; rm /tmp/list /tmp/tar tree.tar
list .

echo - cpio
mkdir cpio; (cd tree; find . -print0 | LC_ALL=C sort -z | cpio -0 -o -H newc 2>/dev/null) >newc
(cd cpio; cpio -idm --no-absolute-filenames) 2>&1 <newc
# Inode numbers are in it, and nobody's promise.
cpio -tv --numeric-uid-gid <newc 2>/dev/null; rm newc; list cpio

echo - rsync
rsync -aAXHD tree/ rsync/; list rsync
rsync -aAXHDi tree/ rsync/; rsync -aAXHDi --numeric-ids tree/ rsync/; echo 'nothing to do'
chown 1:1 rsync/char; rm rsync/block; mkfifo rsync/block; chown -h 5:5 rsync/dangling
chmod 777 rsync/fifo
rm rsync/large; mknod rsync/large c 1 1
rsync -aAXHDi tree/ rsync/ | LC_ALL=C sort; list rsync
rsync -a --no-D tree/ no-devices/; rsync -a --chown=5:6 tree/ given/; rsync -rlptD tree/ not-owners/
rsync -a --link-dest="$PWD/tree" tree/ linked/; rsync -a --fake-super tree/ fake/
