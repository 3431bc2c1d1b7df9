# shellcheck shell=bash
# A Debian made inside, of the packages at $url, whose key is /packages.gpg: with devices and mounts of its own, devpts with
# uid=5 among them.
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mmdebstrap --mode=root --variant=minbase --format=directory --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --aptopt='Acquire::http::Proxy::127.0.0.1 "DIRECT"' --keyring=/packages.gpg \
    "$suite" /srv/debian "deb [signed-by=/packages.gpg] $url $suite main" >/tmp/log 2>&1 ||
    { tail -n 30 /tmp/log >&2; exit 1; }
# It tells of times.
rm -r /srv/debian/var/log /tmp/log
