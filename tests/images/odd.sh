# shellcheck shell=bash
# Makes odd/ in a root file system, as root: whatever an image can hold.
umask 022
mkdir odd
cd odd
for owner in 0:42 33:33 100000:200000 3000000000:5 4294967294:4294967294; do
    echo "$owner" >"f-${owner%%:*}"
    chown "$owner" "f-${owner%%:*}"
done
echo x >suid; chown 5:6 suid; chmod 6755 suid
echo x >sgid; chown 0:6 sgid; chmod 2711 sgid
mkdir sticky; chown 7:8 sticky; chmod 1777 sticky
mkdir sgd; chown 70000:80000 sgd; chmod 2775 sgd; echo y >sgd/in; chown 70001:80000 sgd/in
ln -s f-33 link; chown -h 12:13 link
ln -s nowhere dangling; chown -h 3000000000:100000 dangling
mkfifo fifo; chown 14:15 fifo; chmod 640 fifo
ln suid hard-suid; ln fifo hard-fifo; ln -P link hard-link
mknod null c 1 3; chown 0:6 null; chmod 666 null
mknod block b 7 1; chown 100000:6 block
echo c >caps; chown 20:21 caps; setcap cap_net_raw,cap_chown+ep caps
echo d >xattr; chown 1000:1000 xattr; setfattr -n user.odd -v 'a value' xattr
echo e >acl; chown 30:31 acl; setfacl -m u:1234:rw,g:100000:r acl
mkdir acl-dir; chown 32:33 acl-dir; setfacl -m u:77:rwx acl-dir; setfacl -d -m u:78:rx acl-dir
echo l >$'latin-\351'; chown 40:41 $'latin-\351'
mkdir -p private/in; echo p >private/in/f; chown -R 998:997 private; chmod 700 private private/in; chmod 600 private/in/f
echo z >no-mode; chown 50:51 no-mode; chmod 0 no-mode
mkdir no-mode-dir; echo q >no-mode-dir/f; chown 60:61 no-mode-dir no-mode-dir/f; chmod 0 no-mode-dir
echo r >read-only; chmod 444 read-only
cd ..
