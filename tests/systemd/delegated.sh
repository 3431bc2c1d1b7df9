# shellcheck shell=sh
# By root: runs a command in a control group that is USER's, seen from there as the only one, as `systemd-run --user --scope
# -p Delegate=yes` would. Afterwards nothing is left of it. Arguments: NAME USER COMMAND...
base=/sys/fs/cgroup
test -e $base/cgroup.controllers || base=$base/unified
group=$base/$1
mkdir "$group" "$group/own"
for file in "$group" "$group/own"; do
    chown "$2" "$file" "$file/cgroup.procs" "$file/cgroup.subtree_control" "$file/cgroup.threads"
done
shift 2
status=0
# shellcheck disable=SC2016 # for the inner shells
sh -euc 'echo $$ >"$0/cgroup.procs"; exec unshare -m -C "$@"' "$group" sh -euc '
    mount -t cgroup2 none /sys/fs/cgroup
    echo $$ >/sys/fs/cgroup/own/cgroup.procs
    exec "$@"' sh "$@" || status=$?
echo 1 >"$group/cgroup.kill"
for _ in $(seq 600); do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    test -e "$group" || break
    sleep 0.1
done
exit $status
