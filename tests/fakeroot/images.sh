# Makes archives and images of `tree`, that of TREE.
export SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000
bash -eu "$TREE"
mkdir out
ls -lnR --time-style=+%s tree >out/listing
find tree -printf '%M %n %U:%G %u:%g %s %y %p\n' | sort >out/found
tar --sort=name -cf out/tree.tar tree
find tree | sort | cpio --reproducible --quiet -o -H newc >out/tree.cpio
bsdtar -cf out/tree.ustar --format=ustar -C tree .
mksquashfs tree out/tree.squashfs -quiet -no-progress -processors 1
genext2fs -q -b 4096 -d tree out/tree.ext2
# Those of these two have times of the files that nobody can set.
genisoimage -quiet -R -o tree.iso tree
isoinfo -R -l -i tree.iso >out/iso
mkfs.ext4 -q -d tree tree.ext4 4M
find tree -type d -printf 'ls -l /%P\n' | sort | debugfs -f - tree.ext4 2>/dev/null >out/ext4
# What they unpack is the same again.
mkdir again
tar -xpf out/tree.tar -C again
find again -mindepth 1 -printf '%M %n %U:%G %s %y %P\n' | sort >out/again
