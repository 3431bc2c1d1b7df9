# shellcheck shell=bash
# Access control lists with ids that no user namespace of one id knows.
acl() {
    getfacl -n -p "$@"
    getfacl -p "$@"
    stat -c '%A %u:%g %n' "$@"
}
tree() { find "$@" ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl -n -p; }
mkdir -p d/e; echo 1 >f; echo 2 >d/g; chown 5:6 f

echo - a file
setfacl -m u:1:rw,u:70000:r,g:4000000000:rwx,u:0:x,g:8:- f; acl f; getfattr -d -m - -e hex f
setfacl -m m::r f; acl f; setfacl -m u:4294967294:r f; acl f
for mode in 640 g+w 707 4770 0; do chmod $mode f; acl f; done
chown 70001:7 f; acl f; setfacl -x u:1 f; acl f
setfacl -m u::rwx,g::rw,o::- f; acl f; setfacl -m u:daemon:rx,g:mail:w f; acl f
setfacl -n -m u:99999:rwx f; acl f
find f -printf '%M\n'; stat -c '%a %A' f; ln f hard; chmod 604 hard; acl f

echo - a directory
touch d/new; mkdir -p d/sub/sub2; ln -s x d/link; touch d/sub/sub2/x
setfacl -d -m u:1:rw,u:70000:r,g:4000000000:rwx,u:0:x d; acl d; setfacl -m u:33:rwx d; acl d
chmod 2711 d; acl d
setfacl -R -m u:3:rwX,d:u:4:rX d/sub; tree d
setfacl -R -m u:60000:rwX,d:u:60001:rwX d/e d/sub/sub2; tree d

echo - copies
cp -a f f2; cp -a d d2; cp f f3; cp -p f f4; cp --preserve=mode f f5; acl f2 f3 f4 f5; tree d2
mv f2 d2/moved; acl d2/moved
tar --acls --xattrs --xattrs-include='*' -cf tar f d
mkdir t1 t2 t3
tar -C t1 --acls --xattrs --xattrs-include='*' -xpf tar; tar -C t2 -xpf tar
tar -C t3 --acls -xf tar; tree t1 t2 t3
tar --acls -tvvf tar | sed -E 's, [0-9]{4}(-[0-9]{2}){2} [0-9:]+ , ,'; rm tar
rsync -aAXHD d/ rsync; tree rsync; rsync -aAXHDi d/ rsync; echo 'nothing to do'
setfacl -m u:5:x rsync/g; setfacl -b rsync/new; rsync -aAXHDi d/ rsync; tree rsync
rsync -aHD d/ rsync2; tree rsync2

echo - restored
tree d f >saved; setfacl -R -b d; tree d; setfacl --restore saved; tree d
setfacl -k d; acl d; setfacl -R -m u:60000:rwX,d:u:60001:rwX d; tree d; setfacl --restore saved
tree d f; rm saved
setfacl -R -x u:70000,d:g:4000000000 d; tree d
getfacl -n f | setfacl --set-file=- f3; acl f3; setfacl -b f3; acl f3
printf 'u:5:r\ng:77777:rwx\n' | setfacl -M - f3; acl f3
setfacl --set u::rw,g::r,o::-,u:88888:rw,m::rwx f3; acl f3; echo u:88888 | setfacl -X - f3; acl f3

echo - refused
try setfacl -m u:4294967295:r f; try setfacl -m d:u:5:r f; try setfacl -m u:70000:r nowhere
setfattr -x system.posix_acl_access f; acl f; setfattr -x system.posix_acl_access f
setfattr -x system.posix_acl_default d; acl d
setfattr -x system.posix_acl_default d
