# Becomes other users and tells what it sees of that, and its threads and children.
import os, sys, threading

def show(who):
    print(who, os.getresuid(), os.getresgid(), os.getgroups(), flush=True)

def attempt(call, *arguments):
    try:
        print(call.__name__, arguments, call(*arguments), flush=True)
    except OSError as error:
        print(call.__name__, arguments, error, flush=True)

def in_child(who, *calls):
    child = os.fork()
    if child == 0:
        for call, *arguments in calls:
            attempt(call, *arguments)
        show(who)
        os._exit(0)
    os.waitpid(child, 0)

show("at first")
in_child("swapped", (os.setresuid, 1, 2, 3), (os.setreuid, 2, 1), (os.setreuid, 2, 1), (os.setresuid, -1, 3, -1))
in_child("setuid", (os.setgid, 5), (os.setuid, 5), (os.setuid, 0), (os.setgid, 0), (os.setgroups, [1]))
in_child("back and forth", (os.seteuid, 7), (os.setgid, 9), (os.seteuid, 0), (os.setgid, 9), (os.initgroups, "alice", 2000))
os.setgroups([100000, 29])
os.setresgid(2000, 3000, 2000)
os.setresuid(2000, 2000, 70000)
show("set")
thread = threading.Thread(target=show, args=("thread",))
thread.start()
thread.join()
in_child("child", (os.setuid, 70000), (os.setuid, 0))
descriptor = os.open("/tmp/by-python", os.O_CREAT | os.O_EXCL)
found = os.fstat(descriptor)
print(found.st_uid, found.st_gid, os.access("/tmp/by-python", os.W_OK), os.access("/tmp/by-python", os.W_OK, effective_ids=True))
attempt(os.chown, "/tmp/by-python", 0, -1)
attempt(os.chown, "/tmp/by-python", -1, 29)
attempt(os.chown, "/tmp/by-python", -1, 8)
attempt(os.chmod, "/tmp/by-python", 0o2755)
attempt(os.setxattr, "/tmp/by-python", "user.test", b"value")
attempt(os.utime, "/tmp/by-python", (1, 1))
attempt(os.chmod, "/etc/passwd", 0o644)
attempt(os.setxattr, "/etc/passwd", "user.test", b"value")
attempt(os.utime, "/etc/passwd", (1, 1))
attempt(os.utime, "/etc/passwd")
for path in "/tmp/by-python", "/etc/passwd", "/etc/shadow", "/root", "/usr/bin", "/usr/bin/id", "/none":
    modes = os.F_OK, os.R_OK, os.W_OK, os.X_OK
    print(path, *(os.access(path, mode, effective_ids=effective) for effective in (False, True) for mode in modes), flush=True)
os.mkdir("/tmp/shared")
os.chown("/tmp/shared", -1, 29)
os.chmod("/tmp/shared", 0o2775)
os.mkdir("/tmp/shared/directory")
os.mkfifo("/tmp/shared/fifo")
os.symlink("nowhere", "/tmp/shared/link")
os.close(os.open("/tmp/shared", os.O_TMPFILE | os.O_RDWR))
for name in sorted(os.listdir("/tmp/shared")):
    found = os.lstat("/tmp/shared/" + name)
    print(name, oct(found.st_mode), found.st_uid, found.st_gid, flush=True)
os.spawnl(os.P_WAIT, "/usr/local/bin/me", "me", "spawned")
os.posix_spawn("/usr/bin/id", ["id"], {})
os.wait()
os.execl("/usr/local/bin/me", "me", "after exec")
