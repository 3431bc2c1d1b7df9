# Makes `tree`, of the kinds of files that packages and images have; with `fakeroot` around it.
mkdir -p tree/etc tree/usr/bin tree/dev tree/var/mail tree/srv/www tree/home/u
cp -a /usr/bin/true /usr/bin/env tree/usr/bin
cp -a /etc/passwd tree/etc
cp -aL /etc/os-release tree/etc
install -m 640 -o 0 -g 42 /etc/hostname tree/etc/shadow
echo page >tree/srv/www/index.html
chown -R 33:33 tree/srv/www
chmod 4755 tree/usr/bin/env
chgrp 8 tree/var/mail
chmod 2775 tree/var/mail
ln -s ../usr/bin/env tree/etc/link
chown -h 1000:1000 tree/etc/link
ln tree/etc/passwd tree/etc/hard
mkfifo tree/dev/fifo
chown 5:5 tree/dev/fifo
mknod -m 666 tree/dev/null c 1 3
mknod -m 660 tree/dev/disk b 8 0
chown 0:6 tree/dev/disk
echo secret >tree/home/u/file
chmod 700 tree/home/u
chown -R 70000:70000 tree/home/u
find tree -exec touch -h -d @1700000000 {} +
