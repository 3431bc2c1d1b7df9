# shellcheck shell=sh disable=SC3043 # dash knows local
# said COMMAND...: runs a command of podman's, which may stand behind other words, and prints what its container has
# said, one stream after the other.
#
# What podman brings by itself is not all: conmon looks which of its descriptors are ready, and if the kernel lets it
# wait then until the container has ended, it sees that at once, ends, and has never accepted the connection that podman
# attached by. Only the output is lost; conmon's log has it. So the output of `podman run` is taken from there. The log
# goes with its directory: such a container runs once. `exec` is not concerned, conmon has accepted before it begins.
#
# In the same way conmon misses that the runtime has ended where it makes a terminal; then podman says so.
said() {
    local directory='' word='' found=no status=0 try=''
    directory=$(mktemp -d)
    for word; do
        shift
        set -- "$@" "$word"
        case $found,$word in
        no,podman | no,*/podman) found=podman ;;
        podman,run)
            found=run
            set -- "$@" --log-driver=k8s-file --log-opt "path=$directory/log"
            ;;
        esac
    done
    for try in 1 2 3 4 5; do
        status=0
        rm -f "$directory/log"
        "$@" >"$directory/stdout" 2>"$directory/stderr" || status=$?
        grep -q 'create failed (no logs from conmon)' "$directory/stderr" || break
        echo "conmon missed it ($try)" >&2
    done
    if [ $found = run ] && [ -e "$directory/log" ]; then
        [ $status = 0 ] || cat "$directory/stderr" >&2
        for word in stdout stderr; do
            # Lines are `TIME STREAM F TEXT`; one that ends without a line feed, or goes on in the next, has P.
            awk -v stream=$word '$2 == stream {
                printf "%s%s", substr($0, length($1 $2 $3) + 4), $3 == "F" ? "\n" : "" }' "$directory/log" >"$directory/$word"
        done
    fi
    cat "$directory/stdout"
    cat "$directory/stderr" >&2
    rm -r "$directory"
    return $status
}
