# For packagers, and for who installs for all users of a machine. `subuidless install --user` sets up one user.
#
#   make                                   builds the program, its manual pages and completions
#   make static                            builds a program that needs no library, for any Linux: $(STATIC)
#   make install [DESTDIR=] [PREFIX=]      installs what `make list` lists
#   make install FAKEROOT=1                also calls it fakeroot
#   make uninstall [DESTDIR=] [PREFIX=]    removes exactly that
#   make deb                               a Debian package, with cargo-deb
#   make sbom                              a bill of materials (CycloneDX) of the program, and one of the static one
#
# What is built depends on the source and the compilers alone, not on the directory or the user.
#
# GENERATE is a subuidless that runs here, where the one that is installed is for another architecture.

PREFIX ?= /usr/local
DESTDIR ?=
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/subuidless
UNITDIR ?= $(PREFIX)/lib/systemd/user
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d

CARGO ?= cargo
CARGO_TARGET_DIR ?= target
BINARY ?= $(CARGO_TARGET_DIR)/release/subuidless
GENERATE ?= $(BINARY)
RUSTC ?= rustc
INSTALL ?= install

# What is generated for $(BINARY), and where a package is put together.
OUT ?= $(CARGO_TARGET_DIR)/dist
DEB = target/deb
HOST = $(shell $(RUSTC) -vV | sed -n 's/^host: //p')
STATIC ?= $(CARGO_TARGET_DIR)/static/$(HOST)/release/subuidless

# Paths of this machine do not get into the program.
PATHS = $(CURDIR)=. $(or $(CARGO_HOME),$(HOME)/.cargo)=cargo
RELEASE = env RUSTFLAGS="$(PATHS:%=--remap-path-prefix=%) $(RUSTFLAGS)" CFLAGS="$(PATHS:%=-ffile-prefix-map=%) $(CFLAGS)" \
	$(CARGO) build --release --locked

LINKS = subuidless-crun subuidless-runc fakeroot-subuidless
# Where it is not 1, a `fakeroot` is another package's.
FAKEROOT ?=
FAKEROOT_LINK = $(if $(filter 1,$(FAKEROOT)),fakeroot)
UNITS = subuidless.socket subuidless.service
# In the same places to each other as here: README.md links to docs/.
DOCUMENTS = README.md CHANGELOG.md CONTRIBUTING.md LICENSE $(sort $(wildcard docs/*.md))

all: build
	$(MAKE) $(OUT)/stamp

build:
	$(RELEASE)

# With a target, the flags are not for programs that run during the build. --undefined: std declares the function as a weak
# symbol, for which no archive is searched, and calls it when a program panics.
static: RUSTFLAGS += -C target-feature=+crt-static -C link-arg=-Wl,--undefined=dl_iterate_phdr
static: export LIBSECCOMP_LINK_TYPE = static
static: export LIBSECCOMP_LIB_PATH = $(shell pkg-config --variable=libdir libseccomp)
static:
	$(RELEASE) --target $(HOST) --target-dir $(CARGO_TARGET_DIR)/static

sbom:
	mkdir -p $(OUT)
	scripts/notices sbom > $(OUT)/subuidless.cdx.json
	scripts/notices sbom --static > $(OUT)/subuidless-static.cdx.json

# Only cargo knows whether it is up to date: `make install` takes what was built before, so that root need not build.
$(BINARY):
	$(RELEASE)

$(OUT)/stamp: $(BINARY)
	rm -rf $(OUT)
	mkdir -p $(OUT)/man $(OUT)/completions
	$(GENERATE) man $(OUT)/man
	$(GENERATE) completions bash > $(OUT)/completions/subuidless
	$(GENERATE) completions zsh > $(OUT)/completions/_subuidless
	$(GENERATE) completions fish > $(OUT)/completions/subuidless.fish
	touch $@

install: $(OUT)/stamp
	$(INSTALL) -D -m 755 $(BINARY) $(DESTDIR)$(BINDIR)/subuidless
	for link in $(LINKS) $(FAKEROOT_LINK); do ln -sf subuidless $(DESTDIR)$(BINDIR)/$$link || exit; done
	$(INSTALL) -d $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(UNITDIR)
	$(INSTALL) -m 644 $(OUT)/man/*.1 $(DESTDIR)$(MANDIR)/man1
	for link in $(FAKEROOT_LINK); do ln -sf subuidless-fakeroot.1 $(DESTDIR)$(MANDIR)/man1/$$link.1 || exit; done
	for unit in $(UNITS); do \
		sed 's|@BINARY@|$(BINDIR)/subuidless|' dist/systemd/$$unit.in > $(DESTDIR)$(UNITDIR)/$$unit && \
		chmod 644 $(DESTDIR)$(UNITDIR)/$$unit || exit; \
	done
	$(INSTALL) -D -m 644 $(OUT)/completions/subuidless $(DESTDIR)$(BASHDIR)/subuidless
	$(INSTALL) -D -m 644 $(OUT)/completions/_subuidless $(DESTDIR)$(ZSHDIR)/_subuidless
	$(INSTALL) -D -m 644 $(OUT)/completions/subuidless.fish $(DESTDIR)$(FISHDIR)/subuidless.fish
	for document in $(DOCUMENTS); do $(INSTALL) -D -m 644 $$document $(DESTDIR)$(DOCDIR)/$$document || exit; done

# The paths that `install` makes.
list: $(OUT)/stamp
	@for name in subuidless $(LINKS) $(FAKEROOT_LINK); do echo $(BINDIR)/$$name; done
	@for link in $(FAKEROOT_LINK); do echo $(MANDIR)/man1/$$link.1; done
	@for page in $(OUT)/man/*.1; do echo $(MANDIR)/man1/$${page##*/}; done
	@for unit in $(UNITS); do echo $(UNITDIR)/$$unit; done
	@echo $(BASHDIR)/subuidless
	@echo $(ZSHDIR)/_subuidless
	@echo $(FISHDIR)/subuidless.fish
	@for document in $(DOCUMENTS); do echo $(DOCDIR)/$$document; done

# With the pages of commands that another version had: all of that name are ours. A fakeroot is if it is our link.
uninstall:
	for name in subuidless $(LINKS); do rm -f $(DESTDIR)$(BINDIR)/$$name || exit; done
	[ "$$(readlink $(DESTDIR)$(BINDIR)/fakeroot)" != subuidless ] || rm $(DESTDIR)$(BINDIR)/fakeroot
	[ "$$(readlink $(DESTDIR)$(MANDIR)/man1/fakeroot.1)" != subuidless-fakeroot.1 ] || rm $(DESTDIR)$(MANDIR)/man1/fakeroot.1
	rm -f $(DESTDIR)$(MANDIR)/man1/subuidless.1 $(DESTDIR)$(MANDIR)/man1/subuidless-*.1
	for unit in $(UNITS); do rm -f $(DESTDIR)$(UNITDIR)/$$unit || exit; done
	rm -f $(DESTDIR)$(BASHDIR)/subuidless $(DESTDIR)$(ZSHDIR)/_subuidless $(DESTDIR)$(FISHDIR)/subuidless.fish
	for document in $(DOCUMENTS); do rm -f $(DESTDIR)$(DOCDIR)/$$document || exit; done
	-rmdir $(DESTDIR)$(DOCDIR)/docs $(DESTDIR)$(DOCDIR)

# Cargo.toml says what becomes of that tree.
deb: build
	rm -rf $(DEB)
	$(MAKE) install DESTDIR=$(DEB) PREFIX=/usr
	scripts/notices copyright > $(DEB)/copyright
	scripts/notices changelog > $(DEB)/changelog
	$(CARGO) deb --no-build

.PHONY: all build static sbom install list uninstall deb
