# shellcheck shell=bash
# Ways to open devices that have no driver.
mknod c c 510 7; mknod b b 510 7; mknod -m 700 x c 510 8; chown 5:6 x; ln -s c link
for file in c b x link; do
    try timeout 5 cat $file; try timeout 5 dd status=none if=$file
    try timeout 5 dd status=none of=$file </dev/null
    try timeout 5 cp c copy; try sh -c "echo >$file"; try sh -c "echo >>$file"
    try sh -c "exec 3<>$file"
    perl -MFcntl -e 'foreach $flags (O_RDONLY, O_WRONLY, O_RDWR, O_CREAT | O_RDWR,
            O_CREAT | O_EXCL | O_RDWR, O_TRUNC | O_WRONLY, O_NONBLOCK, O_DIRECTORY, O_NOFOLLOW,
            010000000) {
            sysopen(F, $ARGV[0], $flags) ? print "opened\n" : print "$flags $!\n" }
        truncate($ARGV[0], 3) or print "truncate $!\n";
        { no warnings; exec $ARGV[0]; } print "exec $!\n"' ./$file
    stat -c '%F %t:%T %u:%g %A' $file
done
