# shellcheck shell=sh disable=SC2016,SC2086,SC3043 # the containers' shells expand; OPTIONS are several words; dash knows local
# Containers of podman's, which is "$@", as users of all sorts; small.tar is their image.
# What is printed leaves out additional groups, which a podman with one mapped id ignores, and names, which only root's
# podman gives to unknown ids.

me='id -u; id -g; (id -u; id -g); touch /tmp/f; stat -c "%u:%g %a" /tmp/f; chown 5 /tmp/f 2>&1; rm /tmp/f; stat -c %u:%g /proc/self/'
files='for n in $(seq 100); do ls /tmp/by-* >/dev/null 2>&1 && break; sleep 0.1; done; stat -c "%u:%g %n" /tmp/* /proc/1/'

start() {
    local name=$1 user=$2
    shift 2
    "$@" run -d --env "$MARK" --network=none $OPTIONS --name "$name" --user "$user" localhost/small \
        sh -c 'echo >/tmp/by-init; exec sleep 1000000' >/dev/null
}

"$@" import small.tar small >/dev/null
for user in 999 999:999 70000:100000 0:7 web web:extra; do
    echo "-- run --user $user"
    said "$@" run --rm --env "$MARK" --network=none $OPTIONS --user $user localhost/small sh -c "$me"
done
start c1 0 "$@"
start c2 999:998 "$@"
for container in c1 c2; do
    for user in 999 70000:100000 web web:extra 0; do
        echo "-- exec -u $user $container"
        said "$@" exec -u $user $container sh -c "$me"
    done
    echo "-- exec $container"
    said "$@" exec $container sh -c "$me; $files"
    "$@" stop -t 0 $container >/dev/null
    "$@" start $container >/dev/null
    echo "-- exec $container again"
    said "$@" exec $container sh -c "$me; $files"
done
"$@" rm -f -t 0 c1 c2 >/dev/null
