# shellcheck shell=bash
# dnf makes a tree of the packages of /base.spec and /web.spec, changes it, and rpm says what is not as it should be.
tree=/srv/tree
build() { rpmbuild --quiet --define '_topdir /tmp/build' "$@" >log 2>&1 || { cat log >&2; exit 1; }; }
# Without the time (T), which may be the same second's.
verify() { try rpm --root $tree -Va | sed 's/^\(.\{7\}\)T/\1./'; }
# What dnf prints is a table, with times.
with_dnf() {
    echo "# $*"
    dnf -q -y --installroot=$tree --repofrompath=l,file:///tmp/build/RPMS --repo=l --nogpgcheck --releasever=1 \
        --setopt=install_weak_deps=0 "$@" >log 2>&1 || { echo "dnf: status $?" && cat log; }
    list $tree/bin $tree/etc/passwd $tree/etc/shadow $tree/proc $tree/srv $tree/sys $tree/usr $tree/var/cache/web $tree/var/lib/web \
        $tree/var/log/wtmp $tree/var/spool 2>/dev/null
    verify
}
build -bb /base.spec
for version in 1 2; do build --define "v $version" -bb /web.spec; done
createrepo_c -q /tmp/build/RPMS
with_dnf install base
with_dnf install web-1
cat $tree/srv/seen
chown 5:5 $tree/srv/web/secret
chmod 777 $tree/var/lib/web
setcap -r $tree/usr/libexec/ping
echo mine >>$tree/srv/web/conf
verify
with_dnf upgrade web
cat $tree/srv/seen
with_dnf reinstall web
try rpm --root $tree --setugids web
try rpm --root $tree --setperms web
verify
rpm --root $tree -qlv web | awk '{ print $1, $3, $4, $NF }'
with_dnf downgrade web
with_dnf remove web
rm -r /tmp/build log
