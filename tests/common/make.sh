# shellcheck shell=sh
# For busybox: special inodes with owners, named $1NUMBER for all numbers below $2, and what they look like.
make() {
    n=0
    while [ $n -lt $2 ]; do
        case $((n % 4)) in
        0) ln -s x $1$n ;;
        1) mkfifo $1$n ;;
        2) mknod $1$n c 510 $n ;;
        *) mknod $1$n b 510 $((n + 1000)) ;;
        esac
        chown -h $((n + 1)):$((n + 2)) $1$n
        n=$((n + 1))
    done
}
look() { find /work | sort | while read -r path; do stat -c '%n %F %u:%g %t:%T %a' $path; done; }
mkdir -p /work; cd /work
