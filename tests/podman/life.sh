# shellcheck shell=sh disable=SC2086 # OPTIONS are several words
# What podman, "$@", does with a container in its life: built, checked, stopped, started.

mkdir context
cat >context/Dockerfile <<'END'
FROM localhost/small
RUN touch /var-a && chown 42:43 /var-a
USER web
RUN id -u && touch /tmp/of-web
HEALTHCHECK CMD test "$(id -u):$(stat -c %u:%g /var-a)" = 998:42:43
CMD ["sleep", "1000000"]
END
look='id -u; stat -c "%u:%g %n" /var-a /tmp/of-web /proc/1/'

"$@" import small.tar small >/dev/null
echo "-- build"
# Not every root may raise the limits that hers would raise in a container.
isolation=--network=none
[ "$(id -u)" != 0 ] || isolation=--isolation=chroot
"$@" build --quiet $isolation --format docker -t built context >/dev/null 2>&1
"$@" run -d --env "$MARK" --network=none $OPTIONS --name c1 localhost/built >/dev/null 2>&1
"$@" exec c1 sh -c "$look"
echo "-- healthcheck"
"$@" healthcheck run c1 && echo healthy
echo "-- restart"
"$@" restart -t 0 c1 >/dev/null 2>&1
"$@" exec c1 sh -c "$look"
echo "-- stop, start"
"$@" stop -t 0 c1 >/dev/null 2>&1
"$@" start c1 >/dev/null 2>&1
"$@" exec --user 0 c1 sh -c "$look"
"$@" rm -f -t 0 c1 >/dev/null 2>&1
echo "-- a status of its own"
status=0
"$@" run --rm --env "$MARK" --network=none $OPTIONS --user 999 localhost/small sh -c 'exit 7' || status=$?
echo $status
