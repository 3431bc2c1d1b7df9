# shellcheck shell=bash disable=SC2016 # SUBUIDLESS, TAR and MARK are the test's
# An image with systemd is built, boots, runs a service as another user, and is shut down.
podman() { "$SUBUIDLESS" podman "$@"; }
cat >machine/Dockerfile <<'END'
FROM localhost/debian
COPY packages.gpg install /
RUN sh /install
CMD ["/sbin/init"]
END
podman import --quiet "$TAR" localhost/debian >/dev/null
podman build --quiet --network=host -t machine machine >log 2>&1 || { cat log >&2; exit 1; }
podman run -d --name m1 --network=none --env "$MARK" localhost/machine >/dev/null
for ((tries = 0; tries < 300; tries++)); do
    state=$(podman exec m1 systemctl is-system-running 2>&1) || true
    case $state in running | degraded) break ;; esac
    sleep 0.2
done
echo "$state"
podman exec m1 systemctl list-units --failed --plain --no-legend
podman exec m1 systemd-run --quiet --wait --pipe -p User=www-data -p StateDirectory=web sh -c 'id -u; stat -c %U /var/lib/web'
podman stop -t 60 m1 >/dev/null
podman inspect --format '{{.State.ExitCode}}' m1
