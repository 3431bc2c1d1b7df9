# shellcheck shell=bash
# Programs whose users and daemons know each other: by terminals, by the ids in messages, by System V IPC. $port: a free one.
useradd -m -u 1000 -s /bin/sh alice
useradd -m -u 1001 -s /bin/sh bob
as() { setpriv --reuid "$1" --regid "$1" --init-groups env HOME=/tmp sh -c "$2"; }
# Waits for what a daemon has yet to do.
until_it() { local n; for ((n = 0; n < 200; n++)); do "$@" && return; sleep 0.05; done; echo "never: $*"; }

echo terminals
cat >/usr/local/bin/look <<'END'
#!/bin/sh
stat -c '%U:%G %A' "$(tty)"
if test -O "$(tty)"; then echo mine; fi
END
chmod 755 /usr/local/bin/look
as alice "script -qec 'look; mesg n; look; mesg; mesg y; look' /dev/null" | tr -d '\r'
as alice "expect -c 'spawn -noecho look; expect eof'" | tr -d '\r'
as alice "tmux -f /dev/null new-session -d 'look >/tmp/tmux 2>&1; tmux wait -S done'; tmux wait done"
cat /tmp/tmux
mkdir -p /run/screen; chmod 1777 /run/screen
as alice "TERM=xterm script -qec 'screen -D -m sh -c \"look >/tmp/screen 2>&1\"' /dev/null" >/dev/null
cat /tmp/screen
as bob "script -qec look /dev/null" | tr -d '\r'
script -qec look /dev/null | tr -d '\r'
script -qec 'su - alice -c look' /dev/null | tr -d '\r'

echo messages
bus=org.freedesktop.DBus
call() { echo "gdbus call --$1 --dest $bus --object-path / --method $bus.$2"; }
for who in alice bob root; do
    as $who "dbus-run-session -- $(call session "GetConnectionUnixUser $bus")"
done
mkdir -p /run/dbus
dbus-daemon --system --fork --print-pid >/tmp/bus
for who in alice root; do
    as $who "$(call system "GetConnectionUnixUser $bus")"
done
/usr/lib/polkit-1/polkitd --no-debug >/tmp/polkitd 2>&1 &
polkitd=$!
until_it gdbus wait --system --timeout 1 org.freedesktop.PolicyKit1
for who in alice root; do
    as $who 'status=0; pkcheck --action-id org.freedesktop.policykit.exec --process $$ 2>&1 || status=$?; echo "status $status"'
done
kill $polkitd $(cat /tmp/bus); wait $polkitd || true
cat >/etc/rsyslog.conf <<END
module(load="imuxsock" SysSock.Annotate="on" SysSock.ParseTrusted="on")
template(name="ids" type="string" string="%\$!uid%:%\$!gid% %msg%\n")
action(type="omfile" file="/var/log/all" template="ids")
END
rsyslogd -n 2>/var/log/errors &
rsyslogd=$!
until_it test -S /dev/log
for who in alice bob root; do
    # Alive until the line has been read.
    as $who "(echo of $who; until grep -q 'of $who' /var/log/all 2>/dev/null; do sleep 0.05; done) | logger -t test"
    until_it grep "of $who" /var/log/all
done
kill $rsyslogd; wait $rsyslogd || true

echo IPC
a2dismod -q -f mpm_event; a2enmod -q mpm_prefork
printf 'Mutex sysvsem default\nServerName here\nStartServers 2\n' >/etc/apache2/conf-enabled/test.conf
printf 'Listen 127.0.0.1:%s\nListen 127.0.0.2:%s\n' "$port" "$port" >/etc/apache2/ports.conf
echo hello >/var/www/html/index.html
get() { exec 3<>"/dev/tcp/$1/$port" && printf 'GET /index.html HTTP/1.0\r\n\r\n' >&3 && tr -d '\r' <&3 | sed -n '1p;$p'; exec 3>&-; }
apache2ctl start
for address in 127.0.0.1 127.0.0.2; do get $address; get $address; done
cat /proc/sysvipc/sem | awk 'NR > 1 { print $4, "semaphores" }' | sort -u
apache2ctl stop
until_it test ! -e /run/apache2/apache2.pid
grep -c 'resuming normal operations' /var/log/apache2/error.log
