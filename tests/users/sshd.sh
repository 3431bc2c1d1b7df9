# shellcheck shell=bash disable=SC2154,SC2016 # port; the server's shell expands
# sshd, installed: it separates privileges, logs users in, and believes no file that somebody else could have written.

make_users
list /etc/ssh
list /usr/lib/openssh
list /usr/bin/ssh-agent
getent passwd sshd
mkdir -p /run/sshd
/usr/sbin/sshd -t
/usr/sbin/sshd -E /var/log/sshd.log -o ListenAddress=127.0.0.1 -p "$port"

cat >/home/alice/config <<END
Host 127.0.0.1
    Port $port
    BatchMode yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
END
as_alice() { runuser -u alice -- "$@" </dev/null; }
# Usage: to USER COMMAND [OPTION OF ssh]
to() { as_alice ssh -F /home/alice/config ${3+"$3"} "$1@127.0.0.1" "$2" 2>&1 || echo "ssh: $?"; }

as_alice ssh-keygen -q -t ed25519 -N '' -f /home/alice/.ssh/id_ed25519
list /home/alice/.ssh
runuser -u bob -- mkdir -m 700 /home/bob/.ssh
as_alice cat /home/alice/.ssh/id_ed25519.pub | runuser -u bob -- tee /home/bob/.ssh/authorized_keys >/dev/null
listening() { exec 3<>"/dev/tcp/127.0.0.1/$port" && read -r -t 10 <&3 && exec 3>&-; }
patiently listening
# Of OpenSSH 9.8 and later, the program of a session is another one.
session=sshd
[[ ! -e /usr/lib/openssh/sshd-session ]] || session=sshd-session
to bob 'me over ssh; pwd; echo $HOME $USER'

# While a session lasts, the monitor is root's and the rest bob's.
to bob 'echo $$ >/tmp/session; exec sleep 1000' >/dev/null &
patiently test -s /tmp/session
processes "$session: bob"
processes sleep
kill "$(cat /tmp/session)"
wait
# Before anybody has logged in, a process without privileges talks to the client. (OpenSSH 10 calls it otherwise.)
exec 4<>"/dev/tcp/127.0.0.1/$port"
printf 'SSH-2.0-test\r\n' >&4
talks() { processes sshd | grep -E ': \[(net|session-auth)\]'; }
patiently talks
exec 4>&-
# sshd gives the terminal to the user.
to bob 'stat -c "%U:%G %a %F" $(tty)' -tt | tr -d '\r'

chown alice /home/bob/.ssh/authorized_keys
to bob id
chown bob /home/bob/.ssh/authorized_keys
chown alice /home/bob
to bob id
chown bob /home/bob
to bob id
chown root:root /home/bob/.ssh/authorized_keys
to bob id
to root id

echo sent >/tmp/sent
as_alice scp -q -F /home/alice/config /tmp/sent bob@127.0.0.1:received
list /home/bob
kill "$(cat /run/sshd.pid)"
sed -n 's/.*\(Accepted publickey for [a-z]*\).*/\1/p; s/.*\(Authentication refused: bad ownership.*\)/\1/p' /var/log/sshd.log
