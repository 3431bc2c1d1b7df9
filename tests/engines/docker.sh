# shellcheck shell=sh
# Docker, from an archive to an archive.
entries() {
    engine create --name created "$1" >/dev/null
    engine export created | tar --numeric-owner -tvf - | awk '{ $4 = $5 = "" } 1' | tr -s ' ' | sort
    engine rm created >/dev/null
}
soon() { until "$@" >/dev/null 2>&1; do sleep 0.1; done; }
is() { [ "$(engine inspect -f "$1" "$2")" = "$3" ]; }

engine import - small <small.tar >/dev/null
mkdir context; cp Dockerfile context

echo "-- build"
DOCKER_BUILDKIT=0 engine build -q -t app context >/dev/null
entries app >classic; grep -v "busybox$" classic
DOCKER_BUILDKIT=1 engine build -q -t app2 context >/dev/null 2>&1
entries app2 | diff classic - && echo the same by BuildKit

echo "-- a service"
engine run -d --name service --env "$MARK" app >/dev/null
engine exec service sh -c 'id; ls -lnA /data | awk "{ print \$1, \$3, \$4, \$9 }"; touch /data/made /tmp/made'
engine exec -u 0 service sh -c 'chown 5:6 /tmp/made; mkdir -m 700 /closed; stat -c "%n %u:%g" /data/made /tmp/made'
engine exec -u 33 service sh -c 'exec 2>&1; id; cat /data/secret; ls /closed; kill -0 1 || echo no'
engine exec -u web:extra -w /tmp service sh -c 'id -G; echo x >y; stat -c %u:%g y'
soon is '{{.State.Health.Status}}' service healthy
engine inspect -f '{{.State.Health.Status}}' service

echo "-- copies"
engine cp service:/data - | tar --numeric-owner -tvf - | awk '{ $4 = $5 = "" } 1' | tr -s ' ' | sort
tar --numeric-owner --owner=21 --group=22 -cf - small.tar | engine cp - service:/tmp
engine exec service stat -c '%n %u:%g' /tmp/small.tar

echo "-- again"
engine stop -t 0 service >/dev/null; engine start service >/dev/null
engine exec service stat -c '%n %u:%g' /data/made /tmp/made /closed
engine diff service | sort

echo "-- commit, save, load"
engine commit service kept >/dev/null; engine rm -fv service >/dev/null
engine save -o kept.tar kept; engine rmi kept >/dev/null; engine load -qi kept.tar >/dev/null
entries kept | diff classic - || :

echo "-- volumes, networks, ports"
engine volume create shared >/dev/null; engine network create between >/dev/null
engine run --rm -v shared:/data app stat -c '%n %u:%g' /data /data/seed /data/link
engine run -d --name server --env "$MARK" --network between -v shared:/srv -p 127.0.0.1:8099:80 \
    small httpd -f -h /srv >/dev/null
engine run --rm --network between -v shared:/mnt --user 33:44 app sh -c 'stat -c "%n %u:%g" /mnt /mnt/*
    until wget -qO- http://server/seed; do sleep 0.1; done; echo x 2>/dev/null >/mnt/new || echo closed'
soon $INSIDE busybox wget -qO- http://127.0.0.1:8099/seed
$INSIDE busybox wget -qO- http://127.0.0.1:8099/seed
engine rm -f server >/dev/null

echo "-- restarts"
engine run -d --name again --env "$MARK" --restart on-failure:2 small sh -c 'exit 3' >/dev/null
soon is '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' again "2 exited 3"
engine rm again >/dev/null

echo "-- options"
engine run --rm -t --user web --tmpfs /run:uid=33,gid=70000,mode=2750 --tmpfs /ro:uid=5,ro app sh -c '
    id; ls -ln $(tty) | awk "{ print \$1, \$3, \$4 }"; echo to the terminal >/dev/tty; stat -c "%n %u:%g %a" /run /ro
    touch /ro/x || :' | tr -d '\r'
engine run --rm --read-only --cap-drop ALL small sh -c 'exec 2>&1; chown 5 /tmp; touch /x || :'
echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}' >deny
engine run --rm --security-opt seccomp=deny --security-opt no-new-privileges small sh -c 'exec 2>&1
    mkdir d; touch f; chown 70000:5 f; stat -c %u:%g f'
engine run --rm --security-opt seccomp=unconfined --cap-add SYS_ADMIN small sh -c '
    mkdir d; mount -t tmpfs -o uid=8 none d; stat -c %u d; su web -c id'
