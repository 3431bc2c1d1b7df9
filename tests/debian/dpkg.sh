# shellcheck shell=bash
# Makes a package whose files have odd owners, and installs it.
mkdir -p package/DEBIAN package/opt/odd/deep package/var/cache/odd
cat >package/DEBIAN/control <<'END'
Package: odd
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: files of all sorts of owners
END
cat >package/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
chown daemon:adm /opt/odd/later
chmod 2755 /opt/odd/later
END
chmod 755 package/DEBIAN/postinst
for file in root mail large largest setuid later; do echo $file >package/opt/odd/$file; done
ln -s mail package/opt/odd/link; ln package/opt/odd/mail package/opt/odd/hard
chown 8:8 package/opt/odd/mail; chown 70000:80000 package/opt/odd/large
chown 4294967294:4294967294 package/opt/odd/deep; chown 2097151:2097151 package/opt/odd/largest
chown 999:998 package/opt/odd/setuid; chmod 6755 package/opt/odd/setuid
chown -h 5:6 package/opt/odd/link; chown 33:33 package/var/cache/odd
chown 2000000:1 package/opt/odd/deep
dpkg-deb --build package odd.deb
dpkg -c odd.deb | awk '{ print $1, $2, $6, $7, $8 }'
dpkg-statoverride --add 7 7 0640 /opt/odd/root 2>/dev/null || dpkg-statoverride --add lp lp 0640 /opt/odd/root
dpkg --force-unsafe-io -i odd.deb 2>&1 | grep -v 'Reading database'
list /opt; list /var/cache/odd; dpkg -V odd
dpkg --force-unsafe-io -i odd.deb 2>&1 | grep -v 'Reading database'
list /opt
dpkg-query -L odd | xargs stat -c '%n %u:%g'
