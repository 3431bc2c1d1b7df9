# shellcheck shell=bash
# Programs that gain ids or capabilities, and those that they execute.
cd /usr/local/bin
for name in plain setuid setgid caps; do cp /secure $name; done
chmod 4755 setuid
chgrp crew setgid
chmod 2755 setgid
setcap cap_kill=ep caps
variables=(LD_PRELOAD="/lib/$(uname -m)-linux-gnu/libm.so.6" LD_LIBRARY_PATH=/tmp TMPDIR=/tmp/x GCONV_PATH=/tmp/y OTHER=5)
for who in alice root; do
    as=(setpriv --reuid $who --regid $who --clear-groups env "${variables[@]}")
    for name in plain setuid setgid caps; do
        "${as[@]}" ./$name
        "${as[@]}" ./$name back ./plain
        "${as[@]}" ./plain vfork ./$name ./plain
        "${as[@]}" sh -c "./$name; ./plain"
    done
done
setpriv --ruid bob env "${variables[@]}" ./plain
