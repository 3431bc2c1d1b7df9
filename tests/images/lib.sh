# shellcheck shell=bash
# What the scripts beside this file share. From outside: RUN and KEEP (`subuidless run --` and `subuidless`, or nothing for real root),
# PODMAN and BUILDAH (with options), OPTIONS (those of podman run).

# The entries of every layer of OCI layout $1, tag $2. $3 is an option of tar's.
layers() {
    local manifest layer
    manifest=$(jq -r --arg tag "$2" '.manifests[] | select(.annotations."org.opencontainers.image.ref.name" == $tag).digest' "$1/index.json")
    for layer in $(jq -r '.layers[].digest' "$1/blobs/${manifest/://}"); do
        echo "-- layer"
        # Without times, and without what an overlay of a user leaves in attributes.
        tar --numeric-owner --xattrs --xattrs-include='*' --acls -tvvf "$1/blobs/${layer/://}" |
            sed -E '/^  x: +[0-9]+ user\.overlay\./d; s/ [0-9]{4}-[0-9-]+ [0-9:]+ / /; s/^([^ ]{10})\* /\1  /' | tr -s ' '
    done
}

# What the layers consist of, without how they are compressed.
contents() {
    local manifest layer
    manifest=$(jq -r '.manifests[0].digest' "$1/index.json")
    for layer in $(jq -r '.layers[].digest' "$1/blobs/${manifest/://}"); do
        gzip -dcf "$1/blobs/${layer/://}" | sha256sum
    done
}

# In the directory of a root file system; what a user namespace cannot unpack is left out.
LIST='find . ! -path ./odd/null ! -path ./odd/block -printf "%P %y %M %U:%G %n %s %l\n" | LC_ALL=C sort
    for f in odd/* odd/no-mode-dir/*; do
        case $f in odd/null | odd/block) ;; *) getfattr -h -d -m "^(user\\.odd|system|security)" -e hex "$f" ;; esac
    done'

# Tells what a command says only if it fails.
quiet() {
    "$@" 2>errors || { cat errors >&2; return 1; }
}
