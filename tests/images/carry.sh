# shellcheck shell=bash disable=SC2086 # PODMAN and its like are several words
# An image goes into podman's storage and out of it again, in all ways.
here=$PWD
quiet $KEEP $PODMAN pull --quiet "oci:$here/img:odd" >id
$KEEP $PODMAN tag "$(cat id)" localhost/pulled
quiet $KEEP $PODMAN push --quiet localhost/pulled "oci:$here/pushed:odd"
quiet $KEEP $PODMAN save --quiet --format oci-archive -o saved.tar localhost/pulled
quiet $KEEP $PODMAN save --quiet --format docker-archive -o docker.tar localhost/pulled
mkdir saved; tar -xf saved.tar -C saved
quiet $KEEP $PODMAN rmi -f localhost/pulled >/dev/null
quiet $KEEP $PODMAN load --quiet -i docker.tar >/dev/null
quiet $KEEP $PODMAN push --quiet localhost/pulled "oci:$here/loaded:odd"
contents img >as-it-was
for layout in pushed saved loaded; do
    contents $layout | cmp - as-it-was
    layers $layout "$(jq -r '.manifests[0].annotations."org.opencontainers.image.ref.name"' $layout/index.json)"
done
cat >look <<END
set -eu
mounted=\$($PODMAN image mount localhost/pulled); cd "\$mounted"; $LIST
tar --exclude=./odd/null --exclude=./odd/block --xattrs --xattrs-include='*' -cf "$here/rootfs.tar" .
cd /; $PODMAN image umount localhost/pulled >/dev/null
END
if [ -n "$KEEP" ]; then $KEEP $PODMAN unshare sh look; else sh look; fi
echo "-- imported"
quiet $KEEP $PODMAN import --quiet rootfs.tar localhost/imported >/dev/null
quiet $KEEP $PODMAN push --quiet localhost/imported "oci:$here/imported:odd"
layers imported odd | LC_ALL=C sort
