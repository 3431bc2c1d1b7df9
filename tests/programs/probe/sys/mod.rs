//! The probe's only unsafe code: raw system calls with typed arguments, so that no wrapper of libc
//! checks or changes anything. It also lays out good and bad memory (see [`Place`]). The meaning of
//! a call, and how it is printed, are in the other modules.

pub(crate) mod calls;
mod library;
mod memory;
pub(crate) mod messages;
mod tasks;

use libc::c_long;

pub(crate) use library::make_by_functions;
pub(crate) use memory::Memory;
pub(crate) use tasks::{
    Birth, Everywhere, clone, clone3, everywhere, exit, exit_thread, ignore, in_child, parent_id,
    process_id, spawn, thread_id, wait,
};

/// A system call that [`invoke`] may make. Only this module can construct one: `invoke` is sound
/// for the calls listed in [`calls`], which access only the memory that their arguments name.
#[derive(Clone, Copy)]
pub(crate) struct Syscall {
    pub(crate) name: &'static str,
    number: c_long,
}

/// The place of an argument in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Heap,
    /// Ends with the last byte of a mapped page; the next page is PROT_NONE.
    PageEnd,
    /// As `PageEnd`, but a string has no NUL, and a buffer crosses the end of the page.
    Cut,
    ReadOnly,
    Unmapped,
    Null,
    One,
    /// An address of the kernel's half.
    Kernel,
    /// An address that no x86-64 page can have.
    NonCanonical,
}

/// One argument of a system call. The variant decides how it is passed and how it is printed.
#[derive(Clone)]
pub(crate) enum Arg {
    Fd(i32),
    /// A file descriptor whose number is not printed.
    HiddenFd(i32),
    Id(u32),
    Octal(u32),
    Number(i64),
    /// A number with a name, which is printed.
    Named(i64, &'static str),
    /// A whole register, including its upper half.
    Word(u64),
    Bits(u32, &'static [(u32, &'static str)]),
    /// The mask of statx(2); it says which of the fields are printed.
    Mask(u32),
    Path(Vec<u8>, Place),
    /// A string that is neither replaced nor shortened in the output, such as a link's target.
    Text(Vec<u8>),
    /// Bytes that the kernel reads.
    Input(Vec<u8>),
    /// Bytes that the kernel writes; they are not printed.
    Output(usize, Place),
    /// Ids that the kernel reads.
    Ids(Vec<u32>, Place),
    /// Words of 32 bits that the kernel reads and may change.
    Words(Vec<u32>, Place),
    /// The arguments or the environment of a program.
    Strings(Vec<Vec<u8>>),
    Stat(Place),
    Statx(Place),
}

/// What [`Arg::Output`] holds before the call.
pub(crate) const UNTOUCHED: u8 = 0xa5;

impl Arg {
    /// How many bytes the kernel may write here, and where they lie.
    fn written(&self) -> Option<(usize, Place)> {
        match self {
            Arg::Stat(place) => Some((size_of::<libc::stat>(), *place)),
            Arg::Statx(place) => Some((size_of::<libc::statx>(), *place)),
            Arg::Output(length, place) => Some((*length, *place)),
            Arg::Words(words, place) => Some((size_of_val(words.as_slice()), *place)),
            _ => None,
        }
    }
}

/// What the kernel answered, and what it wrote to the call's buffers.
pub(crate) struct Answer {
    pub(crate) result: Result<i64, i32>,
    written: [Vec<u8>; 6],
}

impl Answer {
    /// The buffer of the argument `index`, with the length that the call returned.
    pub(crate) fn output(&self, index: usize) -> &[u8] {
        let length = self
            .result
            .ok()
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0);
        let bytes = &self.written[index];
        &bytes[..length.min(bytes.len())]
    }

    /// The buffer of the argument `index` as words; empty if its memory does not exist.
    pub(crate) fn words(&self, index: usize) -> Vec<u32> {
        let (words, _) = self.written[index].as_chunks::<4>();
        words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
    }

    /// The whole buffer of the argument `index`.
    pub(crate) fn bytes_of(&self, index: usize) -> &[u8] {
        &self.written[index]
    }

    fn bytes(&self) -> &[u8] {
        let written = self.written.iter().find(|bytes| !bytes.is_empty());
        written.map_or(&[], Vec::as_slice)
    }

    pub(crate) fn stat(&self) -> libc::stat {
        assert!(self.bytes().len() >= size_of::<libc::stat>());
        // SAFETY: the buffer is long enough, and every bit pattern is a valid `stat`.
        unsafe { std::ptr::read_unaligned(self.bytes().as_ptr().cast()) }
    }

    pub(crate) fn statx(&self) -> libc::statx {
        assert!(self.bytes().len() >= size_of::<libc::statx>());
        // SAFETY: the buffer is long enough, and every bit pattern is a valid `statx`.
        unsafe { std::ptr::read_unaligned(self.bytes().as_ptr().cast()) }
    }
}

/// Makes one system call.
pub(crate) fn invoke(memory: Memory, syscall: Syscall, args: &[Arg]) -> Answer {
    let mut words = [0_i64; 6];
    let mut heap: [Vec<u8>; 6] = Default::default();
    let mut strings = Vec::new();
    for (index, arg) in args.iter().enumerate() {
        let mut put = |contents: &[u8], place| {
            signed(memory.lay_out(index, contents, place, &mut heap[index]))
        };
        words[index] = match arg {
            Arg::Fd(fd) | Arg::HiddenFd(fd) => i64::from(*fd),
            Arg::Id(bits) | Arg::Octal(bits) | Arg::Bits(bits, _) | Arg::Mask(bits) => {
                i64::from(*bits)
            }
            Arg::Number(number) | Arg::Named(number, _) => *number,
            Arg::Word(word) => i64::from_ne_bytes(word.to_ne_bytes()),
            // The bytes of a string without NUL end with the page.
            Arg::Path(path, Place::Cut) => put(path, Place::PageEnd),
            Arg::Path(path, place) => put(&terminated(path), *place),
            Arg::Text(text) => put(&terminated(text), Place::Heap),
            Arg::Input(bytes) => put(bytes, Place::Heap),
            Arg::Ids(ids, place) | Arg::Words(ids, place) => put(&bytes_of(ids), *place),
            Arg::Strings(list) => {
                let first = strings.len();
                strings.extend(list.iter().map(|string| terminated(string)));
                let addresses = strings[first..]
                    .iter()
                    .map(|string: &Vec<u8>| string.as_ptr().expose_provenance().to_ne_bytes());
                let table: Vec<u8> = addresses.chain([[0; 8]]).flatten().collect();
                put(&table, Place::Heap)
            }
            Arg::Output(length, place) => put(&vec![UNTOUCHED; *length], *place),
            Arg::Stat(place) => put(&[0; size_of::<libc::stat>()], *place),
            Arg::Statx(place) => put(&[0; size_of::<libc::statx>()], *place),
        };
    }
    // Each pointer among the words leads to the matching `heap` buffer, to `strings` or to the pages
    // of `memory`, all of which outlive the call and are as long as the kernel is told, or to an
    // address that no Rust object has.
    // SAFETY: as above.
    let by_function = unsafe { library::by_function(syscall.number, words) };
    let value = by_function.unwrap_or_else(|| {
        let mut times = [libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }; 2];
        let (number, [a, b, c, d, e, f]) = calls::existing(syscall.number, words, &mut times);
        // SAFETY: as above; `times` lives on, too.
        unsafe { libc::syscall(number, a, b, c, d, e, f) }
    });
    let result = if value == -1 { Err(errno()) } else { Ok(value) };
    let mut written: [Vec<u8>; 6] = Default::default();
    for (index, arg) in args.iter().enumerate() {
        written[index] = match arg.written() {
            Some((_, Place::Heap)) => std::mem::take(&mut heap[index]),
            Some((length, Place::PageEnd)) => memory.copy_of_page_end(index, length),
            _ => Vec::new(),
        };
    }
    Answer { result, written }
}

/// The times of a utime(2), which are seconds, or of a utimes(2), for utimensat(2). The probe gives
/// these calls no bad addresses.
#[cfg(not(target_arch = "x86_64"))]
fn times_of(address: i64, is_utime: bool, times: &mut [libc::timespec; 2]) -> i64 {
    if address == 0 {
        return 0;
    }
    let first: *const i64 =
        std::ptr::with_exposed_provenance(usize::try_from(address).expect("an address"));
    // SAFETY: the structure has so many words.
    let word = |index: usize| unsafe { first.wrapping_add(index).read_unaligned() };
    *times = match is_utime {
        true => [0, 1].map(|at| libc::timespec {
            tv_sec: word(at),
            tv_nsec: 0,
        }),
        false => [0, 2].map(|at| libc::timespec {
            tv_sec: word(at),
            tv_nsec: word(at + 1) * 1000,
        }),
    };
    signed((&raw const *times).expose_provenance())
}

fn terminated(string: &[u8]) -> Vec<u8> {
    [string, b"\0"].concat()
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn signed(address: usize) -> i64 {
    i64::from_ne_bytes((address as u64).to_ne_bytes())
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Writes a line to standard output at once: children and threads share no buffer, and a crash
/// loses nothing.
pub(crate) fn write_line(line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are those of one slice.
        let written = unsafe { libc::write(1, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = &rest[written..],
            // The reader has ended.
            Err(_) => exit(141),
        }
    }
}
