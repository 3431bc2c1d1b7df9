//! Parses the parts of a runtime's command line that the front needs: the subcommand, the
//! container's id, and some options. Pure.
//!
//! crun parses its arguments with argp(3), runc with Go's flag package: `-b DIR`, `-bDIR`,
//! `--bundle DIR`, `--bundle=DIR` and `-bundle DIR` are all in use. Both stop at the first word
//! that is not an option. Unknown words are passed on unchanged.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Options that take a value: the long name, and the letter of the short one.
type WithValue = [(&'static str, Option<u8>)];

const GLOBAL: &WithValue = &[
    ("root", None),
    ("cgroup-manager", None),
    ("log", None),
    ("log-format", None),
    ("log-level", None),
    ("criu", None),
    ("rootless", None),
];
const CREATE: &WithValue = &[
    ("bundle", Some(b'b')),
    ("config", Some(b'f')),
    ("console-socket", None),
    ("pid-file", None),
    ("preserve-fds", None),
];
const EXEC: &WithValue = &[
    ("process", Some(b'p')),
    ("user", Some(b'u')),
    ("additional-gids", Some(b'g')),
    ("env", Some(b'e')),
    ("cap", Some(b'c')),
    ("cwd", None),
    ("console-socket", None),
    ("pid-file", None),
    ("preserve-fds", None),
    ("process-label", None),
    ("apparmor", None),
    ("cgroup", None),
];

/// The kind of a subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// create, run
    Create,
    Exec,
    /// Subcommands that start no process in a container.
    Other,
}

#[derive(Debug)]
pub(super) struct CommandLine {
    words: Vec<OsString>,
    pub(super) task: Task,
    /// The index of the container's id: the first word behind the subcommand's options.
    id: Option<usize>,
    /// Options before the subcommand.
    global: Vec<PlacedOption>,
    /// Options of the subcommand.
    own: Vec<PlacedOption>,
    /// The index of the subcommand, behind which options can be inserted.
    subcommand: usize,
}

/// An option with its value.
#[derive(Debug)]
struct PlacedOption {
    name: &'static str,
    /// The index of the word with the value, and the offset of the value in that word.
    word: usize,
    start: usize,
    /// The index of the word with the name.
    first: usize,
}

impl CommandLine {
    pub(super) fn parse(words: Vec<OsString>) -> Self {
        let (global, subcommand) = options(&words, 0, GLOBAL);
        let task = match words.get(subcommand).and_then(|word| word.to_str()) {
            Some("create" | "run") => Task::Create,
            Some("exec") => Task::Exec,
            _ => Task::Other,
        };
        let known = match task {
            Task::Create => CREATE,
            Task::Exec => EXEC,
            Task::Other => &[],
        };
        let (own, end) = match task {
            Task::Other => (Vec::new(), words.len()),
            _ => options(&words, subcommand + 1, known),
        };
        let id = (end < words.len()).then_some(end);
        Self {
            words,
            task,
            id,
            global,
            own,
            subcommand,
        }
    }

    pub(super) fn words(&self) -> &[OsString] {
        &self.words
    }

    pub(super) fn id(&self) -> Option<&OsStr> {
        self.id.map(|index| self.words[index].as_os_str())
    }

    /// The value of a global option. If it is given several times, the last value is returned.
    pub(super) fn global(&self, name: &str) -> Option<&OsStr> {
        self.value(self.global.iter().rfind(|found| found.name == name)?)
    }

    /// The value of an option of the subcommand. As above, the last one is returned.
    pub(super) fn own(&self, name: &str) -> Option<&OsStr> {
        self.value(self.own.iter().rfind(|found| found.name == name)?)
    }

    /// All values of a repeatable option of the subcommand.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a OsStr> {
        let found = self.own.iter().filter(move |found| found.name == name);
        found.filter_map(|found| self.value(found))
    }

    fn value(&self, found: &PlacedOption) -> Option<&OsStr> {
        let word = self.words.get(found.word)?;
        Some(OsStr::from_bytes(&word.as_bytes()[found.start..]))
    }

    /// Replaces the value of the subcommand's option `name`, at each occurrence.
    pub(super) fn set(&mut self, name: &str, value: &OsStr) {
        for found in self.own.iter().filter(|found| found.name == name) {
            if let Some(word) = self.words.get_mut(found.word) {
                let mut bytes = word.as_bytes()[..found.start].to_vec();
                bytes.extend_from_slice(value.as_bytes());
                *word = OsString::from_vec(bytes);
            }
        }
    }

    /// Removes all occurrences of the subcommand's option `without`, and inserts `added` behind the
    /// subcommand.
    pub(super) fn into_words(self, without: &str, added: &[OsString]) -> Vec<OsString> {
        let gone = |index: usize| {
            self.own
                .iter()
                .any(|found| found.name == without && (found.first..=found.word).contains(&index))
        };
        let mut words = Vec::with_capacity(self.words.len() + added.len());
        for (index, word) in self.words.iter().enumerate() {
            if !gone(index) {
                words.push(word.clone());
            }
            if index == self.subcommand {
                words.extend_from_slice(added);
            }
        }
        words
    }
}

/// The options with values from the word `start` on, and the index of the first word that is not an
/// option.
fn options(
    words: &[OsString],
    start: usize,
    known: &'static WithValue,
) -> (Vec<PlacedOption>, usize) {
    let mut found = Vec::new();
    let mut index = start;
    while let Some(word) = words.get(index) {
        let bytes = word.as_bytes();
        match bytes {
            b"--" => return (found, index + 1),
            [b'-', _, ..] => {}
            _ => break,
        }
        let first = index;
        if let Some((name, value)) = with_value(bytes, known) {
            // The value is the rest of this word, or the next one.
            let (word, start) = match value {
                Some(start) => (index, start),
                None => (index + 1, 0),
            };
            index = word;
            found.push(PlacedOption {
                name,
                word,
                start,
                first,
            });
        }
        index += 1;
    }
    (found, index.min(words.len()))
}

/// The option of `known` that this word names, and the offset of its value if it is in this word.
fn with_value(word: &[u8], known: &'static WithValue) -> Option<(&'static str, Option<usize>)> {
    let dashes = if word.starts_with(b"--") { 2 } else { 1 };
    let name_end = word.iter().position(|byte| *byte == b'=');
    let name = &word[dashes..name_end.unwrap_or(word.len())];
    let long = known.iter().find(|(long, _)| long.as_bytes() == name);
    if let Some((long, _)) = long {
        return Some((long, name_end.map(|end| end + 1)));
    }
    if dashes == 2 {
        return None;
    }
    // A word of short options, such as -db: the first one with a value takes the rest as the value.
    let (at, (long, _)) = word[1..].iter().enumerate().find_map(|(at, letter)| {
        let option = known.iter().find(|(_, short)| *short == Some(*letter))?;
        Some((at + 1, option))
    })?;
    let value = match word.get(at + 1) {
        None => None,
        // runc accepts -b=DIR, crun does not.
        Some(b'=') => Some(at + 2),
        Some(_) => Some(at + 1),
    };
    Some((long, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(line.split_ascii_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn a_subcommand_is_found_behind_global_options_of_all_kinds() {
        for line in [
            "--log-format=json --log /a/b --cgroup-manager disabled create --bundle /x \
             --pid-file p id",
            "--root /r --systemd-cgroup create -b/x id",
            "-root /r -debug run -bundle=/x id",
            "--debug run -db /x id",
            "run --bundle=/x --detach -- id",
        ] {
            let parsed = parse(line);
            assert_eq!(parsed.task, Task::Create, "{line}");
            assert_eq!(parsed.own("bundle"), Some(OsStr::new("/x")), "{line}");
            assert_eq!(parsed.id(), Some(OsStr::new("id")), "{line}");
        }
        for line in [
            "",
            "--version",
            "features",
            "kill c1 exec",
            "--log exec",
            "state run",
        ] {
            assert_eq!(parse(line).task, Task::Other, "{line}");
        }
    }

    #[test]
    fn the_words_of_the_program_are_no_options() {
        let parsed = parse("exec -t --user 1:2 c1 sh -u 3 --process x");
        assert_eq!(parsed.task, Task::Exec);
        assert_eq!(parsed.own("user"), Some(OsStr::new("1:2")));
        assert_eq!(parsed.own("process"), None);
        assert_eq!(parsed.id(), Some(OsStr::new("c1")));
    }

    #[test]
    fn values_are_exchanged_where_they_stand() {
        let exchanged = |line: &str| {
            let mut parsed = parse(line);
            parsed.set("process", OsStr::new("/new"));
            let words = parsed.into_words("additional-gids", &["--added".into()]);
            words.join(OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(
            exchanged("--root r exec -p old -g 5 -g6 --additional-gids=7 -d id"),
            "--root r exec --added -p /new -d id"
        );
        assert_eq!(
            exchanged("exec --process=old id -g 5"),
            "exec --added --process=/new id -g 5"
        );
        assert_eq!(exchanged("exec -dpold id"), "exec --added -dp/new id");
    }

    #[test]
    fn an_option_without_its_value_is_the_runtimes_to_complain_about() {
        let parsed = parse("exec -p");
        assert_eq!((parsed.own("process"), parsed.id()), (None, None));
        assert_eq!(parse("--root").task, Task::Other);
    }

    /// Random words (xorshift64*), most of which mean something to one of the runtimes.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
            usize::try_from(number).unwrap() % end
        }

        fn word(&mut self) -> OsString {
            const WORDS: [&str; 24] = [
                "create",
                "run",
                "exec",
                "kill",
                "--",
                "-",
                "--=",
                "-=",
                "-b",
                "-b=",
                "-b/x",
                "--bundle",
                "--bundle=",
                "-bundle=/y",
                "-p",
                "-dp",
                "-g7",
                "--process=a=b",
                "--root",
                "--config",
                "c1",
                "",
                "--additional-gids",
                "-tu",
            ];
            if self.below(8) > 0 {
                return WORDS[self.below(WORDS.len())].into();
            }
            let length = self.below(5);
            let bytes = (0..length).map(|_| b"-=bpgu\xff\0"[self.below(8)]);
            OsString::from_vec(bytes.collect())
        }
    }

    #[test]
    fn whatever_the_words_are_values_are_found_again_where_they_were_put() {
        const ROUNDS: u32 = 1_000_000;
        let mut random = Random(0x5eed);
        let new = OsStr::new("/new");
        for _ in 0..ROUNDS {
            let words: Vec<OsString> = (0..random.below(9)).map(|_| random.word()).collect();
            let mut line = CommandLine::parse(words.clone());
            assert_eq!(line.words(), words);
            let task = line.task;
            let id = line.id().map(OsStr::to_owned);
            for name in ["bundle", "process", "config"] {
                let is_there = line.own(name).is_some();
                line.set(name, new);
                assert_eq!(line.own(name), is_there.then_some(new), "{words:?}");
                let again = CommandLine::parse(line.words().to_vec());
                assert_eq!(again.own(name), line.own(name), "{words:?}");
                assert_eq!((again.task, again.id()), (task, id.as_deref()), "{words:?}");
            }
            let is_known = task != Task::Other;
            let added = ["--pid-file".into(), "p".into()];
            let again = CommandLine::parse(line.into_words("additional-gids", &added));
            assert_eq!((again.task, again.id()), (task, id.as_deref()), "{words:?}");
            if is_known {
                assert_eq!(again.all("additional-gids").count(), 0, "{words:?}");
                assert!(again.own("pid-file").is_some(), "{words:?}");
            }
        }
    }
}
