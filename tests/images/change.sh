# shellcheck shell=sh
# Changes much of odd/, from inside of a container of the image. What follows a change of owners may not undo it.
cd /odd
chown 4000000000:6 f-33
chown -h 70:71 link
chown -h 72:73 dangling
touch -h dangling
chown 74:75 fifo
ln -s there new-link; chown -h 76:77 new-link
mkfifo new-fifo; chown 78:79 new-fifo
mknod new-device c 5 9; chown 80:81 new-device
mkdir new-dir; chown 82:83 new-dir; chmod 2750 new-dir; mv new-dir new-dir-2
rm f-0
rm -r sticky; mkdir sticky; touch sticky/fresh; chown 84:85 sticky
touch no-mode-dir/more; chown 86:87 no-mode-dir/more; chmod 700 no-mode-dir
chown 88:89 private
chown 90:91 suid; chmod 4711 suid
rm -r sgd
echo more >>caps
