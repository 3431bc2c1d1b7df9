# shellcheck shell=bash
# Lists that name users and groups without a name, and what copies have of them.
touch f
mkdir d out
setfacl -m u:999:rwx,g:70000:r-x,u:0:r f
chmod 640 f
setfacl -d -m u:123456:rwx d
cp -a f copy
tar --acls -cf all.tar f
tar --acls -C out -xpf all.tar
rm all.tar
rsync -aA f synced
cp -a f bare
setfacl -b bare
getfacl -R . >list
cp -r f other
setfacl --restore=list
try setfacl -m u:998:r plain
getfacl -nc f d copy out/f synced bare other
stat -c %a f
