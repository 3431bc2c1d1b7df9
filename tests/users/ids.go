// A Go program without libc: it becomes other users and tells what it, its threads and its children see of that.
// Usage: ids-go           as root
//
//	ids-go shown     only tells
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

func triple(call uintptr) (ids [3]uint32) {
	syscall.RawSyscall(call, uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&ids[1])), uintptr(unsafe.Pointer(&ids[2])))
	return
}

func show(who string) {
	groups, err := syscall.Getgroups()
	fmt.Println(who, "uid", triple(syscall.SYS_GETRESUID), "gid", triple(syscall.SYS_GETRESGID), "groups", groups, err,
		os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid())
}

func showOwner(path string) {
	os.Remove(path)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		fmt.Println(err)
		return
	}
	var found syscall.Stat_t
	syscall.Fstat(int(file.Fd()), &found)
	fmt.Println(path, found.Uid, found.Gid)
	os.Remove(path)
}

func run(who string, credential *syscall.Credential) {
	command := exec.Command("/proc/self/exe", who)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if err := command.Run(); err != nil {
		fmt.Println(who, err)
	}
}

// A thread that is there before any id changes, and shows itself when it is told to.
type thread struct{ order, done chan bool }

func newThread(who string) thread {
	t := thread{make(chan bool), make(chan bool)}
	go func() {
		runtime.LockOSThread()
		t.done <- true
		<-t.order
		show(who)
		t.done <- true
	}()
	<-t.done
	return t
}

func main() {
	if len(os.Args) > 1 {
		show(os.Args[1])
		showOwner("/tmp/by-go")
		return
	}
	show("at first")
	run("child with credentials", &syscall.Credential{Uid: 2000, Gid: 2001, Groups: []uint32{4, 100000}})
	show("still")
	threads := []thread{newThread("thread 1"), newThread("thread 2"), newThread("thread 3"), newThread("thread 4")}
	fmt.Println(syscall.Setgroups([]int{3000, 24}), syscall.Setresgid(1001, 1002, 1003), syscall.Setresuid(2001, 2002, 2003))
	show("main")
	for _, t := range threads {
		t.order <- true
		<-t.done
	}
	showOwner("/tmp/by-go-main")
	run("child", nil)
	run("child with other credentials", &syscall.Credential{Uid: 5, Gid: 5})
	fmt.Println(syscall.Setuid(0), syscall.Setgid(0), syscall.Setgroups(nil))
	syscall.Exec("/proc/self/exe", []string{"ids", "after exec"}, nil)
}
