//! The random arguments of the series: numbers, ids, descriptors, and above all paths, each written
//! in one of many ways.

use super::Series;
use crate::directed::{IDS, padded};
use crate::probe::{CWD, KEEP, Path};
use crate::sys::Place;

/// splitmix64: small, and the same everywhere.
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The top of the tree. A path may lead up to three levels above it (a descriptor of the directory
/// above it, and a path that is meant for `d0/sub/`), and must not leave the group's directory even
/// then.
pub(super) const TOP: &str = "random/1/2/3/";
/// The directories in which files are created and removed. They are never removed; only `d0` and
/// `d1` may be exchanged.
pub(super) const HOMES: [&str; 4] = ["", "d0/", "d1/", "d0/sub/"];
/// The path from each home to the top; the last one is for a deleted working directory.
pub(super) const UP: [&str; 5] = ["", "../", "../", "../../", "../"];
pub(super) const GONE: usize = 4;

pub(super) const NAMES: [&[u8]; 10] = [
    b"a",
    b"b",
    b"c",
    b"two words",
    b"new\nline",
    b"\xff\xfe",
    b"caf\xe9",
    b"-R",
    b"q\"\\'",
    &[b'L'; 255],
];

/// The descriptors that the series keeps open, and some that are never open.
pub(super) const DESCRIPTORS: [i32; 6] = [200, 201, 202, 203, 204, 205];
pub(super) const BAD_DESCRIPTORS: [i32; 4] = [-1, 9999, CWD, 219];

impl Series<'_> {
    pub(super) fn id(&mut self) -> u32 {
        if self.dice.percent(15) {
            KEEP
        } else {
            self.dice.pick(&IDS)
        }
    }

    pub(super) fn descriptor(&mut self) -> i32 {
        if self.dice.percent(10) {
            self.dice.pick(&BAD_DESCRIPTORS)
        } else {
            self.dice.pick(&DESCRIPTORS)
        }
    }

    pub(super) fn below_top(&self, place: &[u8]) -> Vec<u8> {
        self.p.absolute(&[TOP.as_bytes(), place].concat())
    }

    /// A file's place below the top.
    pub(super) fn place(&mut self) -> Vec<u8> {
        let home = self.dice.pick(&HOMES);
        [home.as_bytes(), self.dice.pick(&NAMES)].concat()
    }

    /// A file's place as a plain path, relative or absolute.
    pub(super) fn plain(&mut self) -> Vec<u8> {
        let place = self.place();
        if self.dice.percent(50) {
            return self.below_top(&place);
        }
        [UP[self.cwd].as_bytes(), &place].concat()
    }

    /// A path to a file, to a home, or to nothing, written in one of many ways.
    pub(super) fn path(&mut self) -> Path {
        let place = match self.dice.below(20) {
            0 => b"d0".to_vec(),
            1 => b"d1/".to_vec(),
            2 => b"d0/sub/..".to_vec(),
            3 => b"missing/x".to_vec(),
            4 => [
                self.place(),
                self.dice
                    .pick(&[&b"/"[..], b"/.", b"/a", b"/../a", b"//", b"/.."])
                    .to_vec(),
            ]
            .concat(),
            _ => self.place(),
        };
        let up = UP[self.cwd].as_bytes();
        let relative = [up, &place].concat();
        let absolute = self.below_top(&place);
        let bytes = match self.dice.below(40) {
            0..14 => relative,
            14..26 => absolute,
            26 => [b"./", relative.as_slice()].concat(),
            27 => [b"//", absolute.as_slice()].concat(),
            28 => [b"/proc/self/cwd/", relative.as_slice()].concat(),
            29 => [b"/proc/thread-self/cwd/", relative.as_slice()].concat(),
            30 => [b"/proc/self/root", absolute.as_slice()].concat(),
            31 => [
                format!("/proc/self/fd/{}/", self.descriptor()).as_bytes(),
                &place,
            ]
            .concat(),
            32 => format!("/proc/self/fd/{}", self.descriptor()).into_bytes(),
            33 => format!("/dev/fd/{}", self.descriptor()).into_bytes(),
            34 => format!("/proc/thread-self/fd/{}", self.descriptor()).into_bytes(),
            35 => padded(up, &place, 4095),
            36 => padded(&self.below_top(b""), &place, 4095),
            37 => padded(up, &place, 4096),
            38 => return Path(relative, Place::PageEnd),
            _ => self.dice.pick(&[&b""[..], b".", b".."]).to_vec(),
        };
        Path(bytes, Place::Heap)
    }

    /// A path that is not a magic link, for calls that do not follow links: only the group
    /// `magic-itself` tests the owners of magic links.
    pub(super) fn path_not_followed(&mut self) -> Path {
        loop {
            let path = self.path();
            let is_magic =
                path.0.windows(4).any(|part| part == b"/fd/") && path.0.ends_with(b"0".as_slice());
            let last = path
                .0
                .rsplit(|byte| *byte == b'/')
                .next()
                .unwrap_or_default();
            if !is_magic && !last.first().is_some_and(u8::is_ascii_digit) {
                return path;
            }
        }
    }

    /// An unusual path to the place of a file itself, never to a file in a directory that exists at
    /// that place.
    pub(super) fn path_of_file(&mut self) -> Path {
        let (up, place) = (UP[self.cwd].as_bytes(), self.place());
        let name = [up, &place].concat();
        let bytes = match self.dice.below(4) {
            0 => [b"./", name.as_slice()].concat(),
            1 => [b"/proc/self/cwd/", name.as_slice()].concat(),
            2 => padded(up, &place, 4095),
            _ => [up, b"d0/../", &place].concat(),
        };
        Path(bytes, Place::Heap)
    }
}
