//! Escapes file names, which are bytes, as UTF-8 text. Pure.

/// Escapes bytes that are not UTF-8 as `\xHH`, and a backslash as `\\`.
pub(super) fn escape(bytes: &[u8]) -> String {
    escape_where(bytes, |_| false)
}

/// As [`escape`], and control characters as `\xHH`, too: a terminal would obey them.
pub(crate) fn escape_for_terminal(bytes: &[u8]) -> String {
    escape_where(bytes, char::is_control)
}

fn escape_where(bytes: &[u8], is_escaped: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    let hexadecimal = |byte: &u8| format!("\\x{byte:02x}");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text += "\\\\",
                c if is_escaped(c) => {
                    let mut buffer = [0; 4];
                    text.extend(
                        c.encode_utf8(&mut buffer)
                            .as_bytes()
                            .iter()
                            .map(hexadecimal),
                    );
                }
                c => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(hexadecimal));
    }
    text
}

/// The inverse of [`escape`].
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // Two backslashes. The text behind them is not an escape.
            bytes.push(b'\\');
            bytes.extend(parts.next().ok_or("a backslash ends the text")?.as_bytes());
        } else {
            let digits = part.strip_prefix('x').and_then(|part| part.get(..2));
            let byte = digits
                .and_then(|digits| decode_hex(digits).ok())
                .ok_or("a backslash is not followed by \\ or xHH")?;
            bytes.extend(byte);
            bytes.extend(&part.as_bytes()[3..]);
        }
    }
    Ok(bytes)
}

pub(super) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn decode_hex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    pairs
        .iter()
        .map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok())
        .collect::<Option<_>>()
        .filter(|_| rest.is_empty())
        .ok_or_else(|| "not pairs of hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::Seeded;
    use super::*;

    #[test]
    fn every_name_survives_the_round_trip() {
        assert_eq!(escape(b"a\\\xff\xc3\xa4\n"), "a\\\\\\xffä\n");
        assert_eq!(
            escape_for_terminal(b"\x1b[1m\xc2\x85"),
            "\\x1b[1m\\xc2\\x85"
        );
        let mut seeded = Seeded(1);
        for _ in 0..20_000 {
            let name = seeded.entry().path;
            for text in [escape(&name), escape_for_terminal(&name)] {
                assert_eq!(unescape(&text), Ok(name.clone()), "{text:?}");
            }
        }
    }

    #[test]
    fn other_text_is_an_error() {
        for text in [
            "\\", "a\\", "\\n", "\\x", "\\x1", "\\xg0", "\\x+1", "\\\\\\", "\\xä",
        ] {
            assert!(unescape(text).is_err(), "{text:?}");
        }
        assert!(decode_hex("0").is_err() && decode_hex("0g").is_err() && decode_hex("+1").is_err());
        assert_eq!(
            decode_hex(&encode_hex(b"\x00\xff")),
            Ok(b"\x00\xff".to_vec())
        );
    }
}
