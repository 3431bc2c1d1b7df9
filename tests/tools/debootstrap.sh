# shellcheck shell=bash
# A Debian made inside, of the packages at $url, whose key is /packages.gpg.
# debootstrap wants to write to a device that it has just made, which takes a driver, unless it takes itself to be in a
# container. The second stage then needs devices that open: those of this container, above the new ones.
export container=lxc
run() { "$@" >/tmp/log 2>&1 || { tail -n 30 /tmp/log >&2; exit 1; }; }
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
run debootstrap --foreign --variant=minbase --keyring=/packages.gpg "$suite" /srv/debian "$url"
list /srv/debian/dev
devices=(null zero full random urandom tty)
for device in "${devices[@]}"; do mount --bind "/dev/$device" "/srv/debian/dev/$device"; done
run chroot /srv/debian /debootstrap/debootstrap --second-stage
for device in "${devices[@]}"; do umount "/srv/debian/dev/$device"; done
# It tells of times and of warnings about this container.
rm /srv/debian/var/log/bootstrap.log /tmp/log
