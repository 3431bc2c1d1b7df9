# shellcheck shell=bash
# Links of all sorts on the way of what is created and changed.
user() { setpriv --reuid 42 --regid 42 --clear-groups "$@" 2>&1 ||:; }
mkdir m; export -f user 2>/dev/null ||:
unshare -m bash -c '
    mount -t tmpfs -o nosymfollow,mode=777 none m; cd m; umask 0; mkdir d; : >d/f
    ln -s d l; ln -s new dangling
    user touch l/x; user touch dangling; user mkdir l/d; user ln -s x l/y; user mkfifo l/p
    chown 5:6 l/f 2>&1; stat -c %u l/f 2>&1; find . | sort'
# Created through a link of procfs, in a directory with a group.
mkdir z; cd z; chgrp 42 .; chmod 2755 .; ln -s /proc/self/cwd/new ../through; : >../through
stat -c "%n %u:%g" *; cd ..
# A socket behind a link of procfs, and a relative one.
mkdir -m 777 s; cd s
user perl -MSocket -e '
    opendir(D, ".");
    for my $path ("/proc/self/fd/" . fileno(D) . "/by-fd", "/proc/self/cwd/by-cwd", "plain") {
        socket(S, PF_UNIX, SOCK_STREAM, 0);
        print bind(S, sockaddr_un($path)) ? "bound\n" : "$!\n";
    }'
stat -c "%n %F" *; stat -c "%n %u:%g" plain; cd ..
# No regular file, but it loses the bit all the same.
mkfifo g; chown 5:6 g; chmod 2644 g
setpriv --clear-groups --inh-caps=-all --bounding-set=-fsetid chown 5:7 g; stat -c "%a %u:%g" g
