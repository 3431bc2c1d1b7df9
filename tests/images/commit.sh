# shellcheck shell=bash disable=SC2086 # PODMAN and its like are several words
# A container sees the owners of its image, changes them, and becomes an image.
here=$PWD
inside='cd /odd; for f in * no-mode-dir/* private/in/*; do case $f in null | block) ;; *) stat -c "%n %F %u:%g %a %h %t:%T" "$f" ;; esac; done'
quiet $KEEP $PODMAN pull --quiet "oci:$here/img:odd" >id
$KEEP $PODMAN tag "$(cat id)" localhost/odd
quiet said $CONTAINER --name c1 localhost/odd sh -euc "$inside; $(cat change.sh); $inside"
quiet $KEEP $PODMAN commit --quiet c1 localhost/committed >/dev/null
quiet $KEEP $PODMAN push --quiet localhost/committed "oci:$here/committed:odd"
# What the runtime makes differs from one podman to the other, but it is in the last layer only.
layers committed odd | grep -Ev ' (etc/(hostname|hosts|mtab|resolv.conf)?|run/(.containerenv)?)( .*)?$'
echo "-- in a container of that, less what a user namespace cannot unpack"
quiet said $CONTAINER --name c2 localhost/committed sh -euc "$inside" | grep -v '^new-device '
$KEEP $PODMAN rm -f c1 c2 >/dev/null
