//! The file that `fakeroot -s` saves: one inode per line, named by device and inode number. Pure.

use nix::sys::stat::FileStat;

use super::entry::{Entry, Kind, parse_id, parse_mode};

/// st_dev and st_ino.
pub(super) type Inode = (u64, u64);

/// `dev=fe00,ino=10092626,mode=104755,uid=100000,gid=70000,nlink=1,rdev=0`
pub(super) fn line(entry: &Entry, stat: &FileStat) -> String {
    let kind = entry.kind.map_or(0, |kind| kind.flag().bits());
    format!(
        "dev={:x},ino={},mode={:o},uid={},gid={},nlink={},rdev={}",
        stat.st_dev,
        stat.st_ino,
        kind | entry.mode.unwrap_or_default(),
        entry.uid.unwrap_or_default(),
        entry.gid.unwrap_or_default(),
        stat.st_nlink,
        entry.device.unwrap_or_default()
    )
}

/// Parses a line. It names the inode; the path of the entry is left empty.
pub(super) fn parse(line: &[u8]) -> Result<(Inode, Entry), String> {
    let text = str::from_utf8(line).map_err(|_| "not text")?;
    let field = |name: &str| {
        text.split(',')
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(|| {
                format!("there is no {name}=, so this is not from a file that `fakeroot -s` saves")
            })
    };
    let number = |name: &str, radix| {
        let value = field(name)?;
        u64::from_str_radix(value, radix).map_err(|_| format!("{name}={value} is not a number"))
    };
    let mode = parse_mode(field("mode")?)?;
    let kind = Kind::of(mode).ok_or_else(|| format!("mode={mode:o} does not have a file type"))?;
    let device = match number("rdev", 10)? {
        rdev if kind.is_device() => {
            Some(u32::try_from(rdev).map_err(|_| format!("rdev={rdev} is not a device number"))?)
        }
        _ => None,
    };
    let entry = Entry {
        kind: Some(kind),
        mode: Some(mode & 0o7777),
        uid: Some(parse_id(field("uid")?)?),
        gid: Some(parse_id(field("gid")?)?),
        device,
        ..Entry::default()
    };
    Ok(((number("dev", 16)?, number("ino", 10)?), entry))
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::Seeded;
    use super::*;

    #[test]
    fn every_entry_survives_the_round_trip() {
        let mut stat = nix::sys::stat::stat("/").unwrap();
        let mut seeded = Seeded(7);
        for _ in 0..5_000 {
            (stat.st_dev, stat.st_ino) = (seeded.below(1 << 30), seeded.below(1 << 39));
            let entry = Entry {
                path: Vec::new(),
                attributes: Vec::new(),
                ..seeded.entry()
            };
            let text = line(&entry, &stat);
            assert_eq!(
                parse(text.as_bytes()),
                Ok(((stat.st_dev, stat.st_ino), entry)),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_lines_are_errors_that_say_why() {
        for (line, why) in [
            ("", "dev="),
            ("{\"format\":1}", "fakeroot"),
            (
                "dev=fe00,ino=x,mode=100644,uid=0,gid=0,nlink=1,rdev=0",
                "ino=x",
            ),
            ("dev=fe00,ino=1,mode=644,uid=0,gid=0,nlink=1,rdev=0", "type"),
            (
                "dev=fe00,ino=1,mode=100644,uid=-1,gid=0,nlink=1,rdev=0",
                "not an id",
            ),
            (
                "dev=fe00,ino=1,mode=20644,uid=0,gid=0,nlink=1,rdev=99999999999",
                "rdev",
            ),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why) || why == "dev=", "{error}");
        }
        assert!(parse(b"dev=\xff").is_err());
    }
}
