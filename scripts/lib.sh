# shellcheck shell=bash
# Functions that the scripts beside this file share; to be sourced, does nothing by itself.
# Names that it sets: REPO (the checkout), DEMO_USER, INSTALLED, PACKAGED.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DEMO_USER=subuidless-demo
# What containers install: packages that change ids, and give files to users of their own.
# shellcheck disable=SC2034  # for who sources this
INSTALLED=(nginx openssh-client openssh-server postgresql python3-minimal sudo)
# With what single tests install.
# shellcheck disable=SC2034
PACKAGED=("${INSTALLED[@]}" apache2 busybox-static cpio createrepo-c dbus debootstrap dnf expect libglib2.0-bin libpam-elogind
    mmdebstrap polkitd rpm rsyslog screen systemd-standalone-tmpfiles tmux)
# What a container boots with; apart, since it does not go with all of the others.
# shellcheck disable=SC2034
BOOTED=(cron dbus openssh-server systemd-sysv)

say() { if [[ -t 2 ]]; then printf '\n\033[1m==> %s\033[0m\n' "$*"; else printf '\n==> %s\n' "$*"; fi >&2; }
die() { printf '%s: error: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Installs the Debian packages that are missing, and names them.
need_packages() {
    local package missing=()
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "this is no Debian; install what these packages hold: ${missing[*]}"
    local root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "not root and no sudo; as root: apt-get install ${missing[*]}"
        root=(sudo)
    fi
    say "installing Debian packages: ${missing[*]}"
    "${root[@]}" apt-get update -q
    # Their daemons are not to be started.
    local policy=/usr/sbin/policy-rc.d made=
    [[ -e $policy ]] || { made=yes && printf '#!/bin/sh\nexit 101\n' | "${root[@]}" install -m 755 /dev/stdin "$policy"; }
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" ||
        die "apt-get could not install: ${missing[*]}${made:+ (remove $policy)}"
    [[ -z $made ]] || "${root[@]}" rm "$policy"
}

# Installs Rust where there is none. Debian 12's own is older than the code; the one that its browsers are built with is not.
need_cargo() {
    local want have packages=(cargo rustc)
    want=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$REPO/Cargo.toml")
    if ! command -v cargo >/dev/null; then
        ! grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release || packages=(cargo-web rustc-web)
        need_packages "${packages[@]}" ca-certificates
    fi
    have=$(cargo --version | cut -d' ' -f2)
    [[ $(printf '%s\n' "$want" "$have" | sort -V | head -n1) == "$want" ]] ||
        die "cargo is $have, the code needs Rust $want or newer (rustup has it)"
}

# Where cargo puts what it builds.
target_dir() { cargo metadata --manifest-path "$REPO/Cargo.toml" --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'; }

build_release() {
    say "cargo build --release $*"
    cargo build --release --manifest-path "$REPO/Cargo.toml" "$@"
}

# Starts the script again through sudo, with this user's cargo, unless we are root. Usage: need_root "$@"
need_root() {
    ((EUID != 0)) || return 0
    command -v sudo >/dev/null || die "needs root (or sudo)"
    say "needs root: starting again with sudo"
    exec sudo env PATH="$PATH" CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" \
        ${SUBUIDLESS_CACHE+SUBUIDLESS_CACHE="$SUBUIDLESS_CACHE"} ${SUBUIDLESS_SUITE+SUBUIDLESS_SUITE="$SUBUIDLESS_SUITE"} ${CARGO_TARGET_DIR+CARGO_TARGET_DIR="$CARGO_TARGET_DIR"} \
        "$(readlink -f "$0")" "$@"
}

# As root: a user without subordinate ids, for things that must not run as root.
unprivileged_user() {
    if ! id -u "$DEMO_USER" >/dev/null 2>&1; then
        say "creating the user $DEMO_USER, without subordinate ids"
        useradd -m -s /bin/bash -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 "$DEMO_USER"
    fi
    local file
    for file in /etc/subuid /etc/subgid; do
        if [[ -e $file ]]; then sed -i "/^$DEMO_USER:/d" "$file"; fi
    done
}

# The suite of the Debian that containers run, $SUBUIDLESS_SUITE or this host's, as $SUITE; and where what is made of it
# lies, as $CACHE.
debian_suite() {
    local host
    host=$(. /etc/os-release && echo "${VERSION_CODENAME:?}")
    SUITE=${SUBUIDLESS_SUITE:-$host}
    CACHE=${SUBUIDLESS_CACHE:-/var/cache/subuidless}
    [[ $SUITE == "$host" ]] || CACHE+=/$SUITE
    ARCHITECTURE=${ARCHITECTURE:-$(dpkg --print-architecture)}
    is_native || CACHE+=/$ARCHITECTURE
    mkdir -p "$CACHE" && chmod 755 "$CACHE"
}

# Whether $ARCHITECTURE is this machine's.
is_native() { [[ $ARCHITECTURE == "$(dpkg --print-architecture)" ]]; }

# A Debian root file system as a tar, at $DEBIAN_TAR below $CACHE; needs root. Made once; remove it to have it made again.
# Its ./dev is empty, for a user who unpacks it could not make the devices.
debian_tar() {
    debian_suite
    DEBIAN_TAR=$CACHE/debian.tar
    [[ ! -s $DEBIAN_TAR ]] || return 0
    need_packages mmdebstrap
    local sources proxy
    sources=$(debian_sources)
    if [[ -z $sources ]]; then
        apt-get update -q
        sources=$(debian_sources)
    fi
    [[ -n $sources ]] || die "apt knows no source of Debian's own packages (apt-get indextargets)"
    proxy=$(apt-config dump | grep -E '^Acquire::[a-z]+::Proxy' || true)
    say "making $DEBIAN_TAR: Debian $SUITE with mmdebstrap, from this host's apt sources"
    mmdebstrap --variant=minbase --include=rsync,attr,acl,libcap2-bin --skip=output/dev --format=tar ${proxy:+--aptopt="$proxy"} \
        --architectures="$ARCHITECTURE" "$SUITE" - - <<<"$sources" >"$DEBIAN_TAR.$$" || { rm -f "$DEBIAN_TAR.$$" && die "mmdebstrap failed"; }
    local dev
    dev=$(mktemp -d) && mkdir -m 755 "$dev/dev"
    tar --append --file="$DEBIAN_TAR.$$" --directory="$dev" --owner=0 --group=0 ./dev
    rm -rf "$dev"
    chmod 644 "$DEBIAN_TAR.$$"
    mv "$DEBIAN_TAR.$$" "$DEBIAN_TAR"
}

# Those of apt's sources that are Debian's, one line each; known once apt-get update has run. Of another suite than this
# host's: the same archive. (A mirror may keep that longer than it is valid.)
debian_sources() {
    local host sources
    host=$(. /etc/os-release && echo "${VERSION_CODENAME:?}")
    # shellcheck disable=SC2016  # fields of apt's, not of the shell's
    sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u)
    if [[ $SUITE == "$host" ]]; then
        echo "$sources"
    else
        sed -n "s/^deb \(.*\) $host main$/deb [check-valid-until=no] \1 $SUITE main/p" <<<"$sources" | head -n 1
    fi
}

# Packages that containers install, with all that they depend on, and in `packages` those that a new Debian consists of, as a
# signed repository of apt's at $PACKAGES_DIR, which is DIRECTORY below $CACHE, its key beside it; needs root and debian_tar.
# Made once for each tar and list of names. Only of Debian's own sources, for others have other builds.
# Usage: package_repository DIRECTORY NAME...
package_repository() {
    PACKAGES_DIR=$CACHE/$1
    shift
    local made_for new package name known=() missing=()
    made_for=$(stat -c '%y %s' "$DEBIAN_TAR" && echo "$*")
    [[ $(cat "$PACKAGES_DIR/made-for" 2>/dev/null) != "$made_for" ]] || return 0
    need_packages apt-utils gpg gpg-agent
    say "making $PACKAGES_DIR: Debian $SUITE's $* and what they need, from this host's apt sources"
    new=$(mktemp -d "$CACHE/packages.XXXXXX")
    # For the user that apt downloads as.
    mkdir -p "$new/apt/partial" "$new/apt/lists/partial" && chmod -R 755 "$new"
    tar -xOf "$DEBIAN_TAR" ./var/lib/dpkg/status >"$new/apt/status"
    debian_sources >"$new/apt/sources"
    # This host's own lists may be old and name files that are gone.
    apt_for apt-get "$new/apt" update || { rm -rf "$new" && die "apt-get could not update"; }
    for name; do
        if apt_for apt-cache "$new/apt" -o Dir::State::status="$new/apt/status" show "$name" >/dev/null 2>&1; then known+=("$name"); else missing+=("$name"); fi
    done
    ((${#missing[@]} == 0)) || say "Debian $SUITE does not have: ${missing[*]}"
    download_packages "$new/apt" "$new/apt/status" "${known[@]}" && {
        [[ ${PACKAGES_DIR##*/} != packages ]] ||
            download_packages "$new/apt" /dev/null '?essential' '?priority(required)' apt usr-is-merged
    } || { rm -rf "$new" && die "apt-get could not download: $*"; }
    # The archive's own names, without epochs.
    for package in "$new"/apt/*.deb; do
        name=${package##*/}
        mv "$package" "$new/${name/_[0-9]%3a/_}"
    done
    rm -rf "$new/apt"
    sign_packages "$new" || { rm -rf "$new" && die "could not sign $new"; }
    echo "$made_for" >"$new/made-for"
    chmod -R a+rX "$new"
    rm -rf "$PACKAGES_DIR"
    mv "$new" "$PACKAGES_DIR"
}

# A command of apt's with the sources and lists in DIRECTORY. Usage: apt_for COMMAND DIRECTORY ARGUMENT...
apt_for() {
    local command=$1 directory=$2
    shift 2
    "$command" -q -o Dir::Etc::SourceList="$directory/sources" -o Dir::Etc::SourceParts=- -o Dir::State::lists="$directory/lists" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Dir::Cache::archives="$directory" "$@"
}

# Downloads what a container in which the packages of STATUS are installed lacks to install NAME...
# Usage: download_packages DIRECTORY STATUS NAME...
download_packages() {
    local directory=$1 status=$2
    shift 2
    apt_for apt-get "$directory" -y --no-install-recommends --download-only -o Dir::State::status="$status" install "$@"
}

# Makes the index of a directory of packages, and signs it with a key that nobody has afterwards: once for sources.list, and
# once below dists, as debootstrap wants it. Usage: sign_packages DIRECTORY
sign_packages() (
    export GNUPGHOME
    # As its containers call it: sid's says that it is the next release.
    suite=$(tar -xOf "$DEBIAN_TAR" ./usr/lib/os-release | sed -n 's/^VERSION_CODENAME=//p') architecture=$(dpkg --print-architecture)
    components=dists/$suite/main/binary-$architecture
    # A short path: the agent's socket lies there.
    GNUPGHOME=$(mktemp -d) && cd "$1" || exit
    trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
    release() { apt-ftparchive -o APT::FTPArchive::Release::Codename="$suite" -o APT::FTPArchive::Release::Suite="$suite" "$@"; }
    mkdir -p "$components" && apt-ftparchive packages . >Packages && cp Packages "$components" &&
        flat=$(release release .) && echo "$flat" >Release &&
        deep=$(release -o APT::FTPArchive::Release::Components=main -o APT::FTPArchive::Release::Architectures="$architecture" \
            release "dists/$suite") && echo "$deep" >"dists/$suite/Release" &&
        gpg --batch --quiet --passphrase '' --quick-generate-key subuidless default sign never &&
        for directory in . "dists/$suite"; do
            gpg --batch --quiet --clear-sign --output "$directory/InRelease" "$directory/Release" || exit
        done && gpg --batch --quiet --export --output key.gpg
)

# The user that containers run as: $DEMO_USER when we are root, ourselves otherwise.
user_name() { if ((EUID == 0)); then echo "$DEMO_USER"; else id -un; fi; }
user_home() { getent passwd "$(user_name)" | cut -d: -f6; }

# Runs a command (or VARIABLE=VALUE ... and a command) as that user, in her home and with a clean environment. Exec'ed: of
# `(as_user CMD) & pid=$!`, pid is CMD's own.
# XDG_RUNTIME_DIR lies in her home: who comes here by way of root has no login session.
as_user() {
    local name home
    name=$(user_name) home=$(user_home)
    local identity=()
    ((EUID != 0)) || identity=(setpriv --reuid "$name" --regid "$(id -g "$name")" --init-groups)
    cd "$home" || die "cannot enter $home"
    # shellcheck disable=SC2016  # for the inner shell
    exec "${identity[@]}" env -i HOME="$home" USER="$name" LOGNAME="$name" SHELL=/bin/sh TERM="${TERM:-dumb}" LANG=C.UTF-8 \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin XDG_RUNTIME_DIR="$home/.subuidless-run" \
        sh -c 'umask 022 && mkdir -p -m 0700 "$XDG_RUNTIME_DIR" && exec env "$@"' -- "$@"
}

# Puts the command which starts crun into the array CRUN. crun wants a cgroup2 mount at /sys/fs/cgroup; on a hybrid
# host that lies at /sys/fs/cgroup/unified, and a bind mount in a mount namespace of our own brings it there.
# Usage: find_crun OPTIONS-OF-UNSHARE...
find_crun() {
    CRUN=(unshare "$@" -m)
    if [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; then
        CRUN+=(crun)
    elif [[ $(stat -f -c %T /sys/fs/cgroup/unified 2>/dev/null) == cgroup2fs ]]; then
        CRUN+=(sh -c "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup && exec \"\$@\"" -- crun)
    else
        die "no cgroup2 file system at /sys/fs/cgroup or /sys/fs/cgroup/unified, and crun needs one"
    fi
    CRUN+=(--cgroup-manager=disabled)
}

# crun with a single mapped id, as the unprivileged user; in a subshell, or as the last command: it is exec'ed.
# Usage: (rootless_crun [VARIABLE=VALUE ...] -- run -b BUNDLE NAME)
rootless_crun() {
    local CRUN variables=()
    while [[ ${1:?} != -- ]]; do variables+=("$1") && shift; done
    shift
    find_crun -r
    as_user "${variables[@]}" "${CRUN[@]}" "$@"
}

# Starts the daemon as that user; sets DAEMON (its pid). Usage: start_daemon BINARY SOCKET LOG [VARIABLE=VALUE...]
start_daemon() {
    local binary=$1 socket=$2 log=$3 tries
    (as_user "${@:4}" "$binary" "$socket") >"$log" 2>&1 &
    DAEMON=$!
    for ((tries = 0; tries < 100; tries++)); do
        ! grep -q listening "$log" || return 0
        kill -0 "$DAEMON" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log" >&2
    stop_daemon
    die "the daemon did not start; its log is above"
}

stop_daemon() {
    [[ -n ${DAEMON:-} ]] || return 0
    kill "$DAEMON" 2>/dev/null || true
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
}
