# shellcheck shell=sh
# containerd, by ctr. Without control groups: `--cgroup "" --cpu-shares 0`.
umoci init --layout layout; umoci new --image layout:latest
umoci raw add-layer --image layout:latest small.tar
mkdir srv; echo secret >srv/secret; tar -cf layer.tar --owner=70000 --group=80000 srv
umoci raw add-layer --image layout:latest layer.tar
umoci config --image layout:latest --config.user web:web --config.cmd id
tar -C layout -cf image.tar .
engine images import --base-name localhost/small "$PWD/image.tar" >/dev/null
start() { engine run --cgroup "" --cpu-shares 0 "$@"; }

for snapshotter in native overlayfs; do
    echo "-- $snapshotter"
    start --rm --snapshotter $snapshotter localhost/small:latest first
    start --rm --snapshotter $snapshotter localhost/small:latest second sh -c 'exec 2>&1
        stat -c "%u:%g %n" /srv/secret /bin/busybox; echo x >/tmp/x; stat -c "%u:%g %n" /tmp/x
        echo x >/srv/x || echo no'
done
start -d --snapshotter native --env "$MARK" localhost/small:latest third sleep 1000
engine task exec --exec-id a third id
engine task exec --exec-id b --user 33 third sh -c 'id; echo x >/tmp/33; stat -c "%u:%g %n" /tmp/33'
engine task exec --exec-id c --user 0 third sh -c 'id; chown 5:6 /srv; stat -c "%u:%g %n" /srv'
engine task kill -s KILL third
until engine task ls | grep -q STOPPED; do sleep 0.1; done
engine task rm third; engine container rm third; engine task ls
