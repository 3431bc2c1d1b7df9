# shellcheck shell=bash
# Functions for the scripts of tests/users.rs, put before each of them.

# Two users, and `me`, which prints what a program and its children see of themselves.
make_users() {
    groupadd -g 3000 crew
    groupadd -g 70000 bob
    useradd -m -u 2000 -s /bin/bash -G crew,audio alice
    useradd -m -u 70000 -g bob -s /bin/bash bob
    cat >/usr/local/bin/me <<'END'
#!/bin/bash -e
echo "-- ${*-}"
id; sh -c 'id; (id -G); exec id -ru'
echo "uid $UID euid $EUID groups ${GROUPS[*]}"
made=$(mktemp -d /tmp/me.XXXXXX)
cd "$made"
umask 022; : >file; mkdir directory; ln -s file link; mkfifo fifo
(: >of-a-child) & wait
stat -c '%n %u:%g %a' . *
chown root file 2>&1 || true
chgrp "$(id -g)" file; stat -c %u:%g file
stat -c %u:%g /proc/self/ /proc/self/status
cd /; rm -r "$made"
END
    chmod 755 /usr/local/bin/me
}

# Owners and modes of what lies below a directory, but for what the host's root has mounted (the packages' key).
list() {
    find "$1" -xdev \( -path /tmp -o -path /proc -o -path /packages.gpg \) -prune -o -printf '%p %M %U:%G %l\n' | LC_ALL=C sort
}

# Calls a command until it succeeds, for a minute.
patiently() {
    local n
    for ((n = 0; n < 600; n++)); do
        if "$@" 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "never came about: $*" >&2
    return 1
}

# The processes whose command line begins with a word, and whose they are.
processes() {
    local process line owner
    for process in /proc/[0-9]*; do
        line=$(tr '\0' ' ' <"$process/cmdline") 2>/dev/null || continue
        if [[ $line == $1* ]] && owner=$(stat -c %U:%G "$process/"); then echo "$owner $line"; fi
    done | sed 's/ *$//' | LC_ALL=C sort
}
