# shellcheck shell=bash
# Lists that are refused leave those that are there.
case $(uname -m) in aarch64) setxattr=5 ;; *) setxattr=188 ;; esac
echo >file; mkdir directory; setfacl -m u:70000:rw,m::rw,u:0:r file directory
setfacl -d -m u:70000:rw,u:0:r directory
set_list() {
    perl -e 'my ($file, $name, $flags, $value) = @ARGV; $value = pack "H*", $value;
        print "$file $name $flags: ",
            syscall('$setxattr', $file, $name, $value, length $value, 0 + $flags) ? "$!\n" : "done\n"' "$@"
}
plain=0200000001000600ffffffff04000400ffffffff20000400ffffffff
foreign=0200000001000600ffffffff020004008038010004000400ffffffff10000700ffffffff20000400ffffffff
for name in access default; do
    for file in file directory; do
        for list in 02 01000000 02000000010006 0200000001000600ffffffff \
            0200000001000600ffffffff02000400ffffffff04000400ffffffff10000700ffffffff20000400ffffffff
        do
            set_list $file system.posix_acl_$name 0 $list; list $file
        done
        for list in $plain $foreign; do
            set_list $file system.posix_acl_$name 4 $list; list $file
            set_list $file system.posix_acl_$name 1 $list; list $file
        done
    done
done
set_list directory system.posix_acl_default 2 $foreign; list directory
set_list directory system.posix_acl_default 2 $plain; list directory
set_list file system.posix_acl_access 2 $plain
set_list file system.posix_acl_access 2 $foreign; list file
setfacl -b file directory; set_list file system.posix_acl_access 2 $foreign
set_list file system.posix_acl_access 1 $foreign; list file
set_list directory system.posix_acl_default 1 $plain
set_list directory system.posix_acl_default 2 $foreign
