# shellcheck shell=bash
# systemd-tmpfiles with /tmpfiles.conf.
mkdir -p t/existing t/Z/a/b t/ZZ/a t/A/a/b t/goners/x source/a
touch t/z1 t/z2 t/Z/a/f t/ZZ/f t/a t/A/f t/x t/gone
chmod 755 t/ZZ/f; ln -s f t/Z/a/l; mkfifo t/Z/p; mknod t/Z/c c 240 3; mknod t/ZZ/c c 240 3
echo s >source/f; chown 55:66 source/f; ln -s f source/l; chown -h 5:5 source/l; mkfifo source/p
mknod source/c c 240 5; chown 77:77 source/c
systemd-tmpfiles --create /tmpfiles.conf; list t
systemd-tmpfiles --create --remove /tmpfiles.conf; list t
chown -R 3:3 t; systemd-tmpfiles --create /tmpfiles.conf; list t
systemd-tmpfiles --clean /tmpfiles.conf; list t
# The system's own.
systemd-tmpfiles --create; list /run /var/tmp /var/lib/systemd /var/log
