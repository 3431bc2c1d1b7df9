# The tables of scripts/bench, from lines `CONTENDER NAME VALUE` sorted by value.
{ key = $1 " " $2; values[key, ++count[key]] = $3 }

function median(key) { return count[key] ? values[key, int((count[key] + 1) / 2)] : "" }
function cell(value, format, width) { return sprintf("%" width "s", value == "" ? "-" : sprintf(format, value)) }
function ratio(a, b) { return a == "" || b == "" || b == 0 ? "" : a / b }
# Targets are upper bounds, or lower ones when `least` is set.
# What was not measured has not met its target.
function verdict(value, target, least) {
    if (target == "") return ""
    targets++
    if (value == "") return "MISS"
    if (least ? value >= target : value <= target) { met++; return "PASS" }
    return "MISS"
}
function bound(target, unit, least) { return target == "" ? "" : (least ? ">= " : "<= ") target unit }

function call(name, title, target,    native, null_, ours, by) {
    native = median("native " name); null_ = median("null " name); ours = median("subuidless " name)
    by = ratio(ours, null_)
    printf "%-34s%s%s%s%s  %-10s %s\n", title, cell(native, "%.0f", 10), cell(null_, "%.0f", 10), cell(ours, "%.0f", 12),
        cell(by, "%.2f", 10), bound(target, " x"), verdict(by, target)
}
function stats(kind, title, target) {
    call(kind "/plain", title, target)
    call(kind "/owned", title ", fake owner", target)
}
function users(kind, title, target) {
    call(kind "/before", title ", root", target)
    call(kind "/root", "  root, ids have been changed", target)
    call(kind "/user", "  a user", target)
}
function unhooked(name, title, target,    native, ours, by) {
    native = median("native " name); ours = median("subuidless " name); by = ratio(ours, native)
    printf "%-34s%s%s%s%s  %-10s %s\n", title, cell(native, "%.0f", 10), cell(median("null " name), "%.0f", 10),
        cell(ours, "%.0f", 12), cell(by, "%.3f", 10), bound(target, " x"), verdict(by, target)
}
function job(name, title, target, fakeroot_target,    native, ours, by, n, who) {
    native = median("native " name)
    printf "%-22s%s", title, cell(native == "" ? "" : native / 1e6, "%.3f", 8)
    split("subuidless run run-plain fakeroot proot pseudoroot", who, " ")
    for (n = 1; n <= 6; n++) {
        ours[n] = median(who[n] " " name)
        printf "%s", cell(ratio(ours[n], native), "%.2f", n == 3 || n == 6 ? 11 : 10)
    }
    by = ratio(ours[4], ours[2])
    printf "  %-8s %-4s %-4s  %s %-4s\n", bound(target, ""), verdict(ratio(ours[1], native), target),
        verdict(ratio(ours[2], native), target), cell(by, "%.1f", 8), verdict(by, fakeroot_target, 1)
}
function install(target,    native, ours, by) {
    native = median("native apt-install"); ours = median("subuidless apt-install"); by = ratio(ours, native)
    printf "%-28s%s%s%s  %-10s %s\n", "apt-get install", cell(native == "" ? "" : native / 1e6, "%.3f", 9),
        cell(ours == "" ? "" : ours / 1e6, "%.3f", 11), cell(by, "%.2f", 29), bound(target, " x"), verdict(by, target)
}
function single(title, key, scale, unit, target,    value) {
    value = median(key)
    if (value != "") value /= scale
    printf "%-40s%s  %-10s %s\n", title, cell(value, "%.1f " unit, 12), bound(target, " " unit), verdict(value, target)
}

END {
    print "\nOne call, nanoseconds             " "    native" "      null" "  subuidless" "    x null" "  target"
    stats("stat-abs", "stat, absolute path", 1.6)
    stats("stat-rel", "stat, dirfd and name", 1.9)
    stats("stat-cwd", "stat, relative path", 1.9)
    stats("fstat", "newfstatat of an fd", 1.6)
    stats("fstat-old", "fstat", 1.6)
    stats("statx", "statx, absolute path", 1.6)
    call("lstat/empty", "lstat of a link, side store empty", 1.6)
    call("lstat/used", "  side store in use")
    call("lstat/kept", "  its owner is in there")
    call("chown/plain", "chown, another owner each time")
    call("chown-same/plain", "chown, the same owner")

    print "\nIds of processes, nanoseconds     " "    native" "      null" "  subuidless" "    x null" "  target"
    for (n = 1; n <= split("getuid getresuid getgroups capget peercred locks-limit", asking, " "); n++) {
        call(asking[n] "/before", asking[n] ", nobody has changed ids", 2)
        call(asking[n] "/root", "  root, somebody has", 2)
        call(asking[n] "/user", "  a user", 2)
    }
    call("setresuid/root", "setresuid, euid to and fro", 2)
    call("setresuid-same/root", "setresuid, no change", 2)
    call("setgroups/root", "setgroups", 2)

    print "\nFiles of users, nanoseconds       " "    native" "      null" "  subuidless" "    x null" "  target"
    for (n = 1; n <= split("chmod utimens access open-existing", touching, " "); n++) users(touching[n], touching[n], 2)
    for (n = 1; n <= split("create mkdir symlink mkfifo", creating, " "); n++) users(creating[n], creating[n], 4)
    users("exec", "fork, exec of /bin/true, wait", 2)

    print "\nNot hooked, nanoseconds           " "    native" "      null" "  subuidless" "  x native" "  target"
    unhooked("getppid/-", "getppid, the bare call")
    unhooked("spin/-", "a program: read, 32 KiB sum, write", 1.03)

    print "\nJobs                  native s container       run  --no-fast  fakeroot     PRoot pseudoroot  target" \
        "   met by both  fakeroot/run"
    job("find", "find -printf %U:%G", 2, 5)
    job("ls-lRn", "ls -lRn", 2, 5)
    job("tar-cf", "tar c", 2, 5)
    job("du", "du -s", 2, 5)
    job("find-user", "find -user 33", 2, 5)
    job("walk", "walk and lstat (perl)", 2, 5)
    job("find-owned", "find, all fake owners", 2, 5)
    job("tar-xf", "tar x", 1.3, 1)
    job("cp-a", "cp -a", 1.3, 1)
    job("rsync-a", "rsync -a", 1.3, 1)
    job("chown-R", "chown -R", 3, 1)
    job("test-e", "test -e, in a loop", 1.6, 1)
    job("id", "id, in a loop", 1.6, 1)
    job("touch", "touch, in a loop", 1.6, 1)
    job("exec", "/bin/true, in a loop", 1.25, 1)
    print "all but the first column: times the native time. PRoot keeps no owner; fakeroot and pseudoroot keep them in"
    print "memory or in a file of theirs, and miss static programs and calls inside the C library."
    print ""
    install(1.10)

    print ""
    single("unshare -r true", "start unshare", 1000, "ms")
    single("fakeroot true", "start fakeroot", 1000, "ms")
    single("pdr -- true", "start pseudoroot", 1000, "ms")
    single("subuidless run true", "start run", 1000, "ms")
    values["times-unshare", count["times-unshare"] = 1] = 1000 * ratio(median("start run"), median("start unshare"))
    single("  times unshare -r", "times-unshare", 1000, "x", 2.5)
    single("crun run true, without subuidless", "start-plain crun-run", 1000, "ms")
    single("crun run true, with subuidless", "start crun-run", 1000, "ms")
    values["difference", count["difference"] = 1] = median("start crun-run") - median("start-plain crun-run")
    single("  difference", "difference", 1000, "ms", 10)
    single("worker, resident after the jobs", "worker VmRSS", 1024, "MiB", 4)
    single("  of which its own (RssAnon)", "worker RssAnon", 1024, "MiB")
    single("daemon, resident after the jobs", "daemon VmRSS", 1024, "MiB", 10)
    single("  of which its own (RssAnon)", "daemon RssAnon", 1024, "MiB")

    same = count["native digest-chowned"] && median("native digest-unpacked") == median("subuidless digest-unpacked") &&
        median("native digest-chowned") == median("subuidless digest-chowned")
    print "\nowners and modes that find shows after tar xf and chown -R: " (same ? "as natively" : "NOT AS NATIVELY")
    installed = count["native digest-installed"] && median("native digest-installed") == median("subuidless digest-installed")
    print "owners and modes that find shows after apt-get install: " (installed ? "as natively" : "NOT AS NATIVELY")
    printf "%d of %d targets met\n", met, targets
    exit !(same && installed)
}
