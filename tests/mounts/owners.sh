# shellcheck shell=bash
# File systems whose options name an owner.
mkdir m p; mount -t tmpfs -o size=1m,uid=70000,gid=5,mode=2750,nodev none m; list m; touch m/f
list m; mkdir m/d
grep -o "/m tmpfs rw,nodev,relatime,size=1024k,mode=2750" /proc/self/mounts; chown 7 m; list m
umount m
mount -t tmpfs -o uid=0,gid=80000 none m; list m; umount m
mount -t devpts none p -o noexec,nosuid,uid=5,gid=5,mode=620,ptmxmode=666; list p
grep -o "/p devpts rw,nosuid,noexec,relatime" /proc/self/mounts; umount p
# In a mount namespace of its own, in a root directory of its own.
unshare -m sh -c 'mount -t devpts none p -o gid=5; ls p; mount -t tmpfs -o uid=7 x m; stat -c %u:%g m'
ls m p
mkdir -p /root2/inside
for dir in bin lib lib64 usr proc; do
    mkdir -p /root2/$dir
    test ! -e /$dir || mount --rbind /$dir /root2/$dir
done
chroot /root2 mount -n -t tmpfs -o gid=9 x /inside; list /root2/inside; umount /root2/inside
for dir in bin lib lib64 usr proc; do umount -l /root2/$dir; done; rm -r /root2
ln -s m link; mount -t tmpfs -o uid=6 none link; list m; umount m; rm link
for options in uid=5,bogus=1 uid=5,mode=x gid=5,size=huge uid=
do try mount -t tmpfs -o $options x m; done
try mount -t tmpfs -o uid=5 x nowhere; try mount -t tmpfs -o uid=5 x /etc/passwd
try mount -t tmpfs -o uid=5 x ''
try setpriv --bounding-set -sys_admin --inh-caps -sys_admin mount -t tmpfs -o uid=5 x m; list .
