# shellcheck shell=bash disable=SC2086 # RUN is several words
# An image is unpacked, changed, repacked, copied and unpacked again.
quiet $RUN umoci unpack --image img:odd first
$RUN sh -euc "cd first/rootfs; $LIST"
$RUN sh -euc 'cd first/rootfs/odd
    echo new >new; chown 4000000000:7 new
    ln -s x new-link; chown -h 77:78 new-link
    mkdir deep; chown 5:5 deep
    mknod new-device c 5 7; chown 9:9 new-device
    chown 11:11 f-33; rm f-0; cp caps caps-2; setcap cap_kill+p caps-2; setfacl -m u:200000:r xattr'
$RUN umoci repack --image img:next first
$RUN skopeo copy --quiet oci:img:next oci:copied:again
layers copied again
quiet $RUN umoci unpack --image copied:again second
$RUN sh -euc "rm -r second/rootfs/odd/new-device; cd second/rootfs; $LIST"
