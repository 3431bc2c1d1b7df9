# shellcheck shell=sh disable=SC2016,SC2086,SC3043 # the containers' shells expand; OPTIONS are several words; dash knows local
# Containers of podman's, which is "$@", whose processes are users of all sorts, with and without a terminal and
# no-new-privileges. What is printed leaves out additional groups of `run`, which a podman with one mapped id ignores.

me='id -u; id -g; (id -u; id -g); grep NoNewPrivs /proc/self/status; echo HOME=$HOME
    touch /tmp/f; stat -c "%u:%g %a" /tmp/f; chown 5 /tmp/f 2>&1; rm /tmp/f; chmod 700 /etc 2>&1; stat -c %u:%g /proc/self/
    echo 500 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj; (cat /proc/$$/environ >/dev/null; readlink /proc/$$/fd/0 >/dev/null && echo sees its parent) 2>&1
    echo to standard error >/dev/stderr; echo to standard output >/dev/stdout; cat /etc/secret 2>&1 >>/etc/passwd
    if terminal=$(tty); then stat -c "%u %F" $terminal; echo to the terminal >$terminal; fi'

sorted() {
    local out=
    out=$(said "$@" 2>&1) || out="$out
status $?"
    # An empty HOME, as podman gives to unknown users, is / to runc.
    echo "$out" | tr -d '\r' | grep -Ev 'level=warning|^HOME=/?$' | sort
}

"$@" import small.tar small >/dev/null
for user in web 999:5 70000:100000 0; do
    for privileges in "" "--security-opt=no-new-privileges"; do
        for terminal in "" -t; do
            echo "-- run --user $user $privileges $terminal"
            sorted "$@" run --rm --env "$MARK" --network=none $OPTIONS --user $user $privileges $terminal localhost/small sh -c "$me"
        done
    done
done
for privileges in "" "--security-opt=no-new-privileges"; do
    "$@" run -d --env "$MARK" --network=none $OPTIONS $privileges --name c1 --user web localhost/small sleep 1000000 >/dev/null
    for user in "" "--user web" "--user web:extra" "--user 70000:100000" "--user 0"; do
        for terminal in "" -t; do
            # crun 1.8.1 gives the terminal of an exec to the user of the container's first process.
            case $terminal$user in -t | -t*web | --user*| "") ;; *) continue ;; esac
            echo "-- exec $privileges $user $terminal"
            sorted "$@" exec $user $terminal c1 sh -c "id; $me"
        done
    done
    "$@" rm -f -t 0 c1 >/dev/null
done
