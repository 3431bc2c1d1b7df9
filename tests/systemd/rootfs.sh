# shellcheck shell=bash disable=SC2016 # SUBUIDLESS, TAR and MARK are the test's
# systemd boots in a root file system of `run`, with daemons of several users, and is shut down.
run() { "$SUBUIDLESS" run --rootfs root "$@"; }
inside() { "$SUBUIDLESS" exec m1 "$@"; }
mkdir root
"$SUBUIDLESS" run -- tar -xpf "$TAR" -C root
run --bind "$PWD/machine/packages.gpg:/packages.gpg:ro" --bind "$PWD/machine/install:/install:ro" -- sh /install 2>log ||
    { cat log >&2; exit 1; }
run --detach --name m1 --net none --env "$MARK" -- /sbin/init
for ((tries = 0; tries < 300; tries++)); do
    state=$(inside systemctl is-system-running 2>&1) || true
    case $state in running | degraded) break ;; esac
    sleep 0.2
done
echo "$state"
inside systemctl list-units --failed --plain --no-legend
inside systemctl is-active cron dbus ssh systemd-journald systemd-logind | uniq
inside systemd-run --quiet --wait --pipe -p User=www-data -p StateDirectory=web sh -c 'id -u; stat -c %U /var/lib/web'
unit() { inside systemd-run --quiet --wait --pipe "$@" 2>&1; }
unit -p DynamicUser=yes sh -c 'test $(id -u) -ge 61184; touch /tmp/f; test $(stat -c %u /tmp/f) = $(id -u); echo dynamic'
unit -p ProtectSystem=strict sh -c 'touch /etc/new 2>/dev/null || echo read-only'
unit -p PrivateTmp=yes -p BindPaths=/etc:/mnt sh -c 'ls /tmp; ls /mnt/passwd'
unit -p User=www-data -p RestrictNamespaces=yes -p AmbientCapabilities=CAP_SETPCAP id -un
inside systemd-run --quiet --wait -p User=www-data logger -t mine 'a line of mine'
inside journalctl --sync
inside journalctl -q -t mine -o verbose | sed -n 's/^ *\(_UID\|MESSAGE\)=/\1 /p' | sort -r
inside stat -c '%U:%G %a' /run /run/lock /tmp
ls -d /sys/fs/cgroup/own/subuidless-* | wc -l
inside systemctl poweroff
until [[ $("$SUBUIDLESS" ps --json) == '[]' ]]; do sleep 0.1; done
ls -d /sys/fs/cgroup/own/subuidless-* 2>/dev/null | wc -l
