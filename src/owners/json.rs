//! Our JSON format: a line that names the format, then one object per file. Pure.
//!
//! ```json
//! {"format":"subuidless-owners","version":1}
//! {"path":"etc/shadow","type":"file","mode":"0640","uid":0,"gid":42}
//! {"path":"dev/null","type":"char","device":[1,3],"mode":"0666","uid":0,"gid":0}
//! {"path":"x\\xff","uid":0,"gid":0,"attributes":{"trusted.overlay.opaque":"79"}}
//! ```
//!
//! In `path` and in names of attributes, a byte that is not UTF-8 is `\xHH` and a backslash is
//! `\\`, before JSON escapes the backslashes again. Values of attributes are hexadecimal. Every
//! field but `path` is optional; `import` leaves unchanged what a line does not name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Kind, device_number, major_minor, parse_mode};
use super::text::{decode_hex, encode_hex, escape, unescape};

const FORMAT: &str = "subuidless-owners";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
}

/// The first line, which names the format.
pub(super) fn head() -> String {
    format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}")
}

/// Checks that `line` is a first line of a known version.
pub(super) fn check_head(line: &[u8]) -> Result<(), String> {
    match serde_json::from_slice(line) {
        Ok(Head { format, version }) if format == FORMAT && version == VERSION => Ok(()),
        Ok(Head { format, version }) if format == FORMAT => Err(format!(
            "its format has version {version}, and this program reads only version \
             {VERSION}: use a newer subuidless"
        )),
        _ => Err(
            "not written by `subuidless owners export`; for other formats use --format".to_owned(),
        ),
    }
}

pub(crate) fn line(entry: &Entry) -> String {
    let attributes = entry.attributes.iter();
    let line = Line {
        path: escape(&entry.path),
        kind: entry.kind.map(|kind| kind.word().to_owned()),
        device: entry.device.map(|number| {
            let (major, minor) = major_minor(number);
            (major.into(), minor.into())
        }),
        mode: entry.mode.map(|mode| format!("{mode:04o}")),
        uid: entry.uid,
        gid: entry.gid,
        attributes: attributes
            .map(|(name, value)| (escape(name), encode_hex(value)))
            .collect(),
    };
    // Cannot fail: strings and numbers only.
    serde_json::to_string(&line).unwrap_or_default()
}

pub(super) fn parse(line: &[u8]) -> Result<Entry, String> {
    // serde also accepts an array in place of a struct.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err("is not a JSON object".to_owned());
    }
    let line: Line = serde_json::from_slice(line)
        .map_err(|error| error.to_string().replace(" at line 1 column", ", column"))?;
    let kind = |word: String| Kind::from_word(&word).ok_or(format!("{word:?} is not a file type"));
    let mode = |text: String| match parse_mode(&text)? {
        mode @ ..0o10000 => Ok(mode),
        _ => Err(format!("{text:?} has bits other than permissions")),
    };
    if [line.uid, line.gid].contains(&Some(u32::MAX)) {
        return Err("4294967295 is not an id".to_owned());
    }
    let kind = line.kind.map(kind).transpose()?;
    if line.device.is_some() && !kind.is_some_and(Kind::is_device) {
        return Err("`device` is allowed only with type char and block".to_owned());
    }
    let attributes = line.attributes.iter().map(|(name, value)| {
        let value = decode_hex(value).map_err(|reason| format!("{name}: {reason}"))?;
        Ok((unescape(name)?, value))
    });
    Ok(Entry {
        path: unescape(&line.path)?,
        kind,
        mode: line.mode.map(mode).transpose()?,
        uid: line.uid,
        gid: line.gid,
        device: line
            .device
            .map(|(major, minor)| device_number(major, minor))
            .transpose()?,
        attributes: attributes.collect::<Result<_, String>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::Seeded;
    use super::*;

    #[test]
    fn every_entry_survives_the_round_trip() {
        let mut seeded = Seeded(3);
        for _ in 0..5_000 {
            let mut entry = seeded.entry();
            entry.attributes.sort();
            let text = line(&entry);
            assert!(!text.contains('\n'));
            let mut read = parse(text.as_bytes()).unwrap();
            read.attributes.sort();
            assert_eq!(read, entry, "{text}");
        }
        assert_eq!(check_head(head().as_bytes()), Ok(()));
    }

    #[test]
    fn what_is_left_out_stays_as_it_is() {
        let entry = parse(br#"{"path":"a","gid":5}"#).unwrap();
        let expected = Entry {
            path: b"a".to_vec(),
            gid: Some(5),
            ..Entry::default()
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn hostile_lines_are_errors_that_say_why() {
        for (text, why) in [
            ("", "object"),
            ("[]", "object"),
            ("{\"path\":\"a\"", "column"),
            ("{\"uid\":1}", "path"),
            ("{\"path\":\"a\",\"uid\":-1}", "-1"),
            ("{\"path\":\"a\",\"uid\":4294967295}", "not an id"),
            ("{\"path\":\"a\",\"uid\":4294967296}", "u32"),
            ("{\"path\":\"a\",\"uuid\":1}", "uuid"),
            ("{\"path\":\"\\\\q\"}", "backslash"),
            ("{\"path\":\"a\",\"mode\":\"100644\"}", "permissions"),
            ("{\"path\":\"a\",\"type\":\"door\"}", "door"),
            ("{\"path\":\"a\",\"device\":[1,3]}", "char and block"),
            (
                "{\"path\":\"a\",\"type\":\"char\",\"device\":[4096,0]}",
                "4096",
            ),
            (
                "{\"path\":\"a\",\"attributes\":{\"x\":\"0\"}}",
                "hexadecimal",
            ),
            (&"{\"path\":".repeat(100_000), "map"),
        ] {
            let error = parse(text.as_bytes()).expect_err(text.get(..40).unwrap_or(text));
            assert!(error.contains(why), "{why}: {error}");
        }
        for head in ["", "{}", "{\"format\":\"subuidless-owners\",\"version\":2}"] {
            assert!(check_head(head.as_bytes()).is_err());
        }
    }
}
