# shellcheck shell=bash
# Signals, priorities, limits and namespaces, as users try them on root's processes, each other's and their own.

as() { local who=$1; shift; setpriv --reuid "$who" --regid "$who" --init-groups "$@"; }

# Calls what is left as a user, with `$1` for a process.
try() {
    local who=$1 pid=$2
    echo "$who: $3"
    as "$who" sh -c "$3" sh "$pid" 2>&1 | sed "s/\b$pid\b/PID/g" || true
}

# Starts a user's process, whose pid is `started`.
start() {
    setpriv --reuid "$1" --regid "$1" --init-groups sleep 1000 &
    started=$!
    patiently grep -q sleep "/proc/$started/comm"
}

acts=('kill -0 $1' 'kill -STOP $1' 'kill -CONT $1' 'renice -n 5 $1' 'ionice -c 3 -p $1'
    'taskset -p 1 $1' 'chrt -b -p 0 $1' 'prlimit --core=0 -p $1')
for whose in root alice bob; do
    start "$whose"
    for who in alice root; do
        for act in "${acts[@]}"; do
            try "$who" "$started" "$act"
        done
    done
    kill "$started"
    wait "$started" || echo "$whose: $?"
done

for act in 'unshare -u true' 'unshare -m true' 'unshare -U true' 'chroot / true' 'mount -t tmpfs none /mnt' \
    'umount /proc' 'hostname x' 'mount --bind / /mnt'; do
    try alice no-process "$act"
done

pids=()
for who in alice bob root; do
    start "$who"
    pids+=("$started")
done
as alice sh -c 'kill -TERM -1'
wait "${pids[0]}" || echo "alice: $?"
kill "${pids[1]}" "${pids[2]}"
wait "${pids[1]}" || echo "bob: $?"
wait "${pids[2]}" || echo "root: $?"
