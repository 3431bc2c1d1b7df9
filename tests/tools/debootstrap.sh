# shellcheck shell=bash
# A Debian made inside, of the packages at $url, whose key is /packages.gpg. debootstrap makes devices, and writes to one.
run() { "$@" >/tmp/log 2>&1 || { tail -n 30 /tmp/log >&2; exit 1; }; }
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
run debootstrap --variant=minbase --keyring=/packages.gpg "$suite" /srv/debian "$url"
list /srv/debian/dev
# It tells of times and of warnings about this container.
rm /srv/debian/var/log/bootstrap.log /tmp/log
