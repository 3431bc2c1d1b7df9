# shellcheck shell=bash
# rpm builds, installs, checks and repairs a package of /odd.spec.
quietly() { try "$@" 2>&1 | grep -v -e '^rpm: ' -e 'outside of the UID_MIN' || true; }
rpmbuild --quiet --define '_topdir /tmp/build' -bb /odd.spec >log 2>&1 || { cat log >&2; exit 1; }
rm log
rpm=/tmp/build/RPMS/noarch/odd-1-1.noarch.rpm
# Without the time, which may be another minute in the other Debian.
rpm -qplv $rpm | sed -E 's/ [A-Z][a-z]{2} +[0-9]+ [0-9:]{5} / /'
rpm -qp --qf '[%{FILENAMES} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILEMODES:perms} %{FILECAPS}\n]' $rpm
stat -c '%n %A %u:%g' /proc /sys
quietly rpm -i --nodeps $rpm; list /opt /var/lib/odd; rpm -V odd && echo verified
chown 5:5 /opt/odd/large; chmod 600 /opt/odd/root; chown -h 9:9 /opt/odd/link
setcap -r /opt/odd/caps; try rpm -V odd
quietly rpm --setperms odd; quietly rpm --setugids odd; quietly rpm --restore odd; list /opt
try rpm -V odd
quietly rpm -U --nodeps --force $rpm; list /opt; rpm -V odd && echo verified
(cd /tmp; rpm2cpio $rpm | cpio -idm 2>&1); list /tmp/opt
quietly rpm -e odd; list /opt; quietly rpm -i --nodeps $rpm; cp -a /opt copy
rm -r /tmp/build /tmp/opt
