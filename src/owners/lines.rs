//! Reads the lines of a file, which may be hostile.

use std::io::{self, BufRead, Read};

/// Enough for a path and a file's largest attributes in hexadecimal.
const LONGEST: usize = 4 << 20;

/// The lines of `input` with their numbers, without their line ends. A line that is too long is
/// skipped, not kept in memory.
pub(super) struct Lines<R> {
    input: R,
    number: usize,
}

/// A line, or the reason why it is not usable.
pub(super) type Line = Result<Vec<u8>, String>;

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let most = LONGEST as u64 + 1;
        if self
            .input
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > LONGEST {
            self.input.skip_until(b'\n')?;
            return Ok(Some(Err("longer than 4 MiB".to_owned())));
        }
        Ok(Some(Ok(line)))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(usize, Line)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.number += 1;
        let number = self.number;
        Some(self.read().transpose()?.map(|line| (number, line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = vec![b'x'; LONGEST + 2];
        let text = [b"a\n\n".as_slice(), &long, b"\nb"].concat();
        let lines: Vec<_> = Lines::new(text.as_slice()).map(Result::unwrap).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], (2, Ok(Vec::new())));
        assert!(lines[2].1.is_err());
        assert_eq!(lines[3], (4, Ok(b"b".to_vec())));
    }
}
