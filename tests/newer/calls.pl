# What a caller may do with calls of Linux 6.15 and later, which have no names in libseccomp yet.
use strict;
use warnings;

my ($CWD, $NOFOLLOW, $EMPTY_PATH, $CLONE) = (-100, 0x100, 0x1000, 1);
my ($OPEN_TREE_ATTR, $GET, $SET) = (467, 468, 469);

sub told {
    my ($what, $result, $error) = @_;
    print "$what: ", $result < 0 ? $error : "done", "\n";
}

# struct file_attr: xflags and four words. NODUMP is 0x80.
sub of_file {
    my ($path, $dirfd, $flags, $given) = @_;
    my $room = pack "QL4", 0, 0, 0, 0, 0;
    my $result = syscall $GET, $dirfd, $given, $room, length $room, $flags;
    my $nodump = unpack("Q", $room) & 0x80 ? " nodump" : "";
    told("file_getattr $path $flags$nodump", $result, $!);
    for my $xflags (0x80, 0) {
        my $wanted = pack "QL4", $xflags, 0, 0, 0, 0;
        $result = syscall $SET, $dirfd, $given, $wanted, length $wanted, $flags;
        told("file_setattr $path $flags", $result, $!);
    }
}

for my $path ("mine", "roots", "directory", "directory/f", "missing", "shared") {
    of_file($path, $CWD, $_, $path) for 0, $NOFOLLOW;
}
of_file("link", $CWD, 0, "link");
of_file("mine", $CWD, 1, "mine");
my $short = pack "Q", 0;
my $roots = "roots";
my $result = syscall $SET, $CWD, $roots, $short, length $short, 0;
told("file_setattr, too short", $result, $!);
if (open my $file, "<", "roots") { of_file("an open file", fileno $file, $EMPTY_PATH, "") }
of_file("no name", $CWD, 0, "");

# Of two faults, the one that is found first differs: without such calls.
# struct mount_attr: what is set, what is cleared, propagation, a user namespace.
for my $name (".", "directory/f", "missing") {
    my $path = $name;
    for my $flags (0, $CLONE) {
        next if $flags && $path eq "directory/f";
        for my $set (0, 0x100000) {
            next if $set && $path eq "missing";
            my $attributes = pack "Q4", $set, 0, 0, 1 << 32;
            $result = syscall $OPEN_TREE_ATTR, $CWD, $path, $flags, $attributes, length $attributes;
            told("open_tree_attr $path $flags $set", $result, $!);
        }
        $result = syscall $OPEN_TREE_ATTR, $CWD, $path, $flags, 0, 0;
        told("open_tree_attr $path $flags", $result, $!);
    }
}
