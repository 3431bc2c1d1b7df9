# shellcheck shell=sh disable=SC2016,SC2086 # the containers' shells expand; OPTIONS are several words
# What podman itself, which is "$@", does with owners: unpacks, builds, copies into volumes and out of containers, commits;
# and what processes of several commands see of each other.

run() { said "$@" 2>&1 | sed -E 's/ [A-Z][a-z]{2} +[0-9]+ [0-9:]+ / /'; }
look='for f in /data /data/* /data/*/* /copied /added /made/for/web /made/for/web/mine /committed; do test -e $f && stat -c "%u:%g %a %n" $f; done; true'

mkdir -p context/build/dir
cd context
cp ../../suid build
echo >build/file
echo >build/dir/file
cat >build/Dockerfile <<'END_OF_FILE'
FROM localhost/small
RUN mkdir -p /data/sub && touch /data/f /data/sub/g && chown -R web:web /data && chown 100000:200000 /data/sub/g && chmod 700 /data/sub
COPY --chown=998:extra file /copied
COPY --chown=3000000000:5 dir /added
COPY suid /suid
RUN chown 0:50 /suid; chmod 6755 /suid
VOLUME /data
USER 998:997
WORKDIR /made/for/web
RUN touch mine
USER 0
RUN chown -R 998:997 /made
CMD ["sleep", "1000000"]
END_OF_FILE
# Not every root may raise the limits that hers would raise in a container.
isolation=--network=none
[ "$(id -u)" != 0 ] || isolation=--isolation=chroot
"$@" import ../small.tar small >/dev/null
"$@" build --quiet $isolation -t built build >log 2>&1 || { cat log >&2; exit 1; }
echo "-- image"
run "$@" run --rm --env "$MARK" --network=none $OPTIONS localhost/built sh -c "$look"
echo "-- volumes"
"$@" volume create v1
for times in 1 2; do
    run "$@" run --rm --env "$MARK" --network=none $OPTIONS -v v1:/data --user web localhost/built sh -c "$look; touch /data/by-web"
done
run "$@" run --rm --env "$MARK" --network=none $OPTIONS -v v1:/data localhost/small sh -c "$look"
mkdir own && touch own/f
run "$@" run --rm --env "$MARK" --network=none $OPTIONS -v "$PWD/own:/data:U" --user 999:7 localhost/small sh -c "$look"
echo "-- processes of several commands"
"$@" run -d --env "$MARK" --network=none $OPTIONS --name c1 --user web:extra --group-add 7 localhost/built >/dev/null
"$@" exec c1 sh -c 'id; cat /proc/1/environ >/dev/null && echo reads; kill -0 1 && echo signals'
"$@" exec --user 999 c1 sh -c 'exec 2>&1; id; cat /proc/1/environ; kill -0 1; stat -c %u:%g /proc/1/; chown 999 /copied; /suid'
"$@" exec --user 0 c1 sh -c 'chown 7:8 /copied; touch /committed; chown 5:6 /committed; kill -0 1 && echo signals'
"$@" exec --user web c1 /suid
echo "-- cp, diff, commit"
"$@" cp build/file c1:/tmp/there
"$@" cp c1:/copied back
"$@" exec c1 stat -c '%u:%g %n' /tmp/there
"$@" diff c1 | grep -v /etc | sort
"$@" commit --quiet c1 again >/dev/null
"$@" save --quiet -o saved.tar again
"$@" rm -f -t 0 c1 >/dev/null
"$@" rmi -f again >/dev/null 2>&1
"$@" load --quiet -i saved.tar >/dev/null
run "$@" run --rm --env "$MARK" --network=none $OPTIONS localhost/again sh -c "$look; id"
