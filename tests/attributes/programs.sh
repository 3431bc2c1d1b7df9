# shellcheck shell=bash
# Attributes of files and directories, of all sorts.
show() {
    getfattr -h -d -m - -e hex "$@"
    getcap "$@"
    stat -c '%A %u:%g %n' "$@"
}
cp /bin/true prog; cp /bin/true other; chmod 755 prog other; ln -s prog link; mkdir d; mkfifo p; mknod c c 510 1

echo - values
for name in user.x trusted.x trusted.overlay.opaque security.x security.selinux security.ima system.x nonsense trusted; do
    for file in prog d link p c nowhere; do
        # The kernel has no attributes but the kept ones on the last four; these are another test's.
        case $file$name in link[ts]* | [pc][ts]*) continue ;; esac
        echo "$file $name"
        try getfattr -h -n $name $file
        try setfattr -h -n $name -v 0x00ff0a0041 $file
        try getfattr -h -n $name -e hex $file
        try getfattr -h -n $name -e base64 $file
        try setfattr -h -n $name -v '' $file
        try getfattr -h -n $name -e text $file
        try setfattr -h -x $name $file
        try setfattr -h -x $name $file
    done
done
large=$(head -c 1500 /dev/zero | base64 -w0)
for name in user.large trusted.large; do
    setfattr -n $name -v 0s"$large" d; getfattr -n $name -e base64 d | md5sum; setfattr -x $name d
done
setfattr -n trusted.a -v 1 prog; setfattr -n security.b -v 2 prog; setfattr -n user.c -v 3 prog
setfattr -n trusted.d d; setfattr -n security.selinux -v abc d; setfattr -n user.e d
chown 70000:8 prog; chown 70000:8 d; show prog d
getfattr -R -d -m . . | LC_ALL=C sort; getfattr -d -m trusted d; getfattr -d -m '^security' d; getfattr -d d prog
getfattr -d -m - -e hex prog >dump; sed -i s/prog/other/ dump; setfattr --restore=dump; show other
setfattr -h -x trusted.a other
attr -s k -V v d; attr -g k d; attr -l d; attr -R -s r -V v d; attr -R -l d; attr -S -s s -V v d; attr -S -l d; attr -r k d
setfattr -n trusted.through -v 1 link; show prog; ln prog hard; show hard; mv hard renamed; show renamed; rm renamed

echo - capabilities
setcap cap_net_raw+ep prog; show prog; setcap cap_net_raw,cap_chown=ei other; show other; getcap -n prog
try setcap cap_chown=ep d; try setcap cap_chown=ep link; try setcap -r link
setcap -r other; show other
chown 4:4 prog; show prog; setcap cap_net_raw+ep prog; chown 4:4 prog; show prog
setcap cap_net_raw+ep prog; chgrp 7 prog; show prog; setcap cap_net_raw+ep prog; echo >>prog; show prog
setcap cap_net_raw+ep prog; chmod 4755 prog; show prog
try setfattr -n security.capability -v 0x00 other; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 other; show other
setfattr -n security.capability -v 0x010000030020000000000000000000000000000000000000 other; show other; getfattr -n security.capability -e hex other
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 d; show d

echo - copies
setfacl -m u:70000:r,u:9:x prog
cp -a prog cp1; cp prog cp2; cp --preserve=xattr prog cp3; cp --preserve=all -r d cp4; show cp1 cp2 cp3 cp4
mv prog /dev/shm/prog; show /dev/shm/prog; mv /dev/shm/prog prog; show prog
tar --xattrs --acls --xattrs-include='*' -cf tar prog d link p c
mkdir t1 t2 t3
tar -C t1 --xattrs --xattrs-include='*' -xpf tar; tar -C t2 --acls -xf tar; tar -C t3 --xattrs --xattrs-include=security.capability -xf tar
tar --xattrs -tvvf tar | sed -E 's, [0-9]{4}(-[0-9]{2}){2} [0-9:]+ , ,'; rm tar
show t1/* t2/* t3/*
rsync -aAXHD prog d link p c rsync; show rsync/*; rsync -aAXHDi prog d link p c rsync; echo 'nothing to do'
setfattr -x trusted.a rsync/prog; setfattr -n trusted.z -v 1 rsync/prog; setcap -r rsync/prog; rsync -aAXHDi prog d link p c rsync
rsync -aAXHD --fake-super prog d link p c fake; show fake/*
