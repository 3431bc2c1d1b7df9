# Makes packages of the tree of TREE, as their makers do it, with the `fakeroot` on PATH.
export SOURCE_DATE_EPOCH=1700000000
mkdir -p out hello/debian arch

cd hello
cat >debian/control <<'END'
Source: hello
Section: misc
Priority: optional
Maintainer: Nobody <nobody@example.org>
Build-Depends: debhelper-compat (= 13)
Standards-Version: 4.6.2
Rules-Requires-Root: binary-targets

Package: hello
Architecture: all
Description: a tree
 With owners and modes.
END
cat >debian/changelog <<'END'
hello (1) unstable; urgency=low

  * First.

 -- Nobody <nobody@example.org>  Tue, 14 Nov 2023 22:13:20 +0000
END
cat >debian/rules <<'END'
#!/usr/bin/make -f
%:
	dh $@
override_dh_auto_install:
	mkdir -p debian/hello
	# fakeroot's devices would be in md5sums, for find(1) they are files.
	cd debian/hello && bash -eu $(TREE) && rm -r tree/dev
override_dh_fixperms:
END
chmod 755 debian/rules
# It calls dpkg-buildpackage, with a PATH of its own.
debuild --no-lintian --prepend-path="$(dirname "$(command -v fakeroot)")" -e TREE -e SOURCE_DATE_EPOCH \
    -b -us -uc -d >../log 2>&1 || { cat ../log >&2; exit 1; }
cd ..
mv hello_1_all.deb out

mkdir -p plain/DEBIAN
cat >plain/DEBIAN/control <<'END'
Package: plain
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a tree
END
fakeroot sh -euc 'cd plain; bash -eu "$TREE"; cd ..; dpkg-deb --build plain out/plain.deb' >>log

cat >odd.spec <<'END'
Name: odd
Version: 1
Release: 1
Summary: a tree
License: none
BuildArch: noarch
%define _buildhost nowhere
%define use_source_date_epoch_as_buildtime 1
%define __os_install_post %{nil}
%define _unpackaged_files_terminate_build 0
%define _binaries_in_noarch_packages_terminate_build 0
%description
A tree.
%install
mkdir -p %{buildroot}
cd %{buildroot} && bash -eu $TREE
%files
%defattr(-,-,-,-)
/tree
END
fakeroot rpmbuild -bb --quiet --define "_topdir $PWD/top" odd.spec >>log 2>&1 || { cat log >&2; exit 1; }
rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILESIZES} %{FILERDEVS} %{FILENAMES}\n]' \
    top/RPMS/noarch/odd-1-1.noarch.rpm >out/rpm

cd arch
cat >PKGBUILD <<'END'
pkgname=hello
pkgver=1
pkgrel=1
arch=(any)
options=(!strip)
package() {
    cd "$pkgdir"
    bash -eu "$TREE"
}
END
# There is no pacman here to ask what is installed.
PACMAN=true makepkg -d --nocolor >../log 2>&1 || { cat ../log >&2; exit 1; }
# These name the version of fakeroot, or have a sum of that. The size is that of all files, of .PKGINFO as far as it is
# written by then.
mkdir ../out/arch
tar --numeric-owner --exclude=.MTREE --exclude=.PKGINFO -tvf hello-1-1-any.pkg.tar.gz >../out/arch/list
tar -xOf hello-1-1-any.pkg.tar.gz .PKGINFO | grep -v -e '^# using fakeroot' -e '^size = ' >../out/arch/info
tar -xOf hello-1-1-any.pkg.tar.gz .MTREE | zcat | grep -v '^\./\.PKGINFO ' >../out/arch/mtree

# As Alpine's abuild: the script calls itself, and knows by the variable that it has.
cd ..
cat >abuild <<'END'
#!/bin/bash -eu
[ "${1-}" = rootpkg ] || exec fakeroot -- "$0" rootpkg
[ -n "$FAKEROOTKEY" ]
mkdir pkg; cd pkg; bash -eu "$TREE"
tar --xattrs -f - -c --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,atime:=0,ctime:=0 --sort=name tree | gzip -n9
END
chmod 755 abuild
./abuild >out/hello.apk
