//! The first bytes of a program: elf(5), and the interpreter of a script. Pure.

/// Whether this is a program for another architecture or word size: its loader cannot load our
/// library.
pub(crate) fn is_foreign(first_bytes: &[u8]) -> bool {
    const EI_CLASS: usize = 4;
    const ELFCLASS64: u8 = 2;
    const MACHINE: usize = 18;
    const EM_X86_64: u16 = 62;
    const EM_AARCH64: u16 = 183;
    let native = match cfg!(target_arch = "aarch64") {
        true => EM_AARCH64,
        false => EM_X86_64,
    };
    if !first_bytes.starts_with(b"\x7fELF") {
        return false;
    }
    let machine = first_bytes
        .get(MACHINE..MACHINE + 2)
        .and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    first_bytes.get(EI_CLASS) != Some(&ELFCLASS64) || machine != Some(native)
}

/// The interpreter that the first line of a script names (execve(2)).
pub(crate) fn interpreter(first_bytes: &[u8]) -> Option<&[u8]> {
    let line = first_bytes.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    line.split(|byte| matches!(byte, b' ' | b'\t' | 0))
        .find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_the_first_word_behind_the_shebang() {
        let of = |text: &'static str| {
            interpreter(text.as_bytes()).map(|path| String::from_utf8_lossy(path).into_owned())
        };
        assert_eq!(of("#!/bin/sh\nrest"), Some("/bin/sh".to_owned()));
        assert_eq!(
            of("#! \t/usr/bin/env python3 -u\n"),
            Some("/usr/bin/env".to_owned())
        );
        assert_eq!(of("#!/bin/true"), Some("/bin/true".to_owned()));
        for none in ["", "#", "#!", "#!\n/bin/sh", "\x7fELF"] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn this_program_is_native_and_one_of_32_bits_is_not() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(!is_foreign(&own[..256]));
        let mut other = own[..256].to_vec();
        other[4] = 1;
        assert!(is_foreign(&other));
        other[4] = 2;
        other[18] ^= 1;
        assert!(is_foreign(&other));
        assert!(is_foreign(b"\x7fELF"));
        assert!(!is_foreign(b"#!/bin/sh"));
    }
}
