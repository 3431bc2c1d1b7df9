# shellcheck shell=bash disable=SC2086 # PODMAN and its like are several words
# Images are built: what podman and buildah do by themselves, and what they start.
here=$PWD
quiet $KEEP $PODMAN pull --quiet "oci:$here/img:odd" >id
$KEEP $PODMAN tag "$(cat id)" localhost/odd
mkdir -p context/dir; echo file >context/file; echo a >context/dir/a; ln -s a context/dir/link
cat >context/Dockerfile <<'END'
FROM localhost/odd
COPY --chown=100000:200000 file /copied
COPY --chown=33:34 --chmod=640 file /copied-2
COPY --chown=web dir /copied-dir
ADD --chown=3000000000:1 file /added
USER 998:997
WORKDIR /made/for/web
RUN id -u >mine && id -g >>mine
USER 0
RUN chown 3000000000:7 /odd/f-33; mkdir /by-run; chown 9:10 /by-run; ln -s x /by-run/l; chown -h 11:12 /by-run/l /odd/link /odd/dangling
RUN stat -c '%n %u:%g %a' /copied* /copied-dir/* /added /made/for /made/for/web /made/for/web/* /by-run/l /odd/link /odd/dangling >/seen
END
kept='etc/(hostname|hosts|mtab|resolv.conf)?|run/(.containerenv)?|proc/|sys/|dev/'
isolation=--network=none
# Not every root may raise the limits that hers would raise in a container.
[ -n "$KEEP" ] || isolation=--isolation=chroot
quiet $KEEP $PODMAN build --quiet $isolation --tag localhost/built context >/dev/null
quiet $KEEP $PODMAN push --quiet localhost/built "oci:$here/built:odd"
layers built odd | grep -Ev " ($kept)( .*)?$" || true
cat >steps <<END
set -eu
test -z "$KEEP" || test -e /sys/fs/cgroup/cgroup.controllers || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
$BUILDAH bud --quiet $isolation --tag localhost/built-2 context >/dev/null
made=\$($BUILDAH from localhost/odd)
$BUILDAH copy --quiet --chown 5:100000 \$made context/dir /copied-3 >/dev/null
$BUILDAH run $isolation \$made -- sh -c 'chown 6:7 /odd/f-33; stat -c "%n %u:%g" /odd/* /copied-3/*' | grep -Ev '/(null|block) '
mounted=\$($BUILDAH mount \$made); chown 8:9 "\$mounted/odd/xattr"; $BUILDAH umount \$made >/dev/null
$BUILDAH commit --quiet \$made localhost/built-3 >/dev/null
END
if [ -n "$KEEP" ]; then quiet $KEEP $BUILDAH unshare sh steps; else sh steps; fi
for n in 2 3; do
    quiet $KEEP $PODMAN push --quiet localhost/built-$n "oci:$here/built-$n:odd"
    layers built-$n odd | grep -Ev " ($kept)( .*)?$" || true
done
