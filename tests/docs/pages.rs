//! [`Page`]: the blocks of a page in Markdown, and the commands in them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command as Process;

/// A page, by its path from the top of the project.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: String,
    text: String,
}

/// What stands between two fences.
#[derive(Debug)]
struct Block {
    /// What stands behind the first fence.
    language: String,
    /// The number of its first line.
    line: usize,
    lines: Vec<String>,
}

/// What a shell takes as one: a line, or as many as belong together.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) prints: Option<String>,
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self {
            path: path.to_owned(),
            text,
        }
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut open = false;
        for (number, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if open => open = false,
                Some(language) => {
                    open = true;
                    blocks.push(Block {
                        language: language.to_owned(),
                        line: number + 2,
                        lines: Vec::new(),
                    });
                }
                None if open => blocks.last_mut().unwrap().lines.push(line.to_owned()),
                None => {}
            }
        }
        assert!(!open, "{}: the last block has no end", self.path);
        blocks
    }

    /// What a reader types, in order.
    pub(crate) fn commands(&self) -> Vec<Command> {
        let blocks = self.blocks().into_iter();
        blocks
            .filter(|block| block.language == "sh")
            .flat_map(|block| block.commands(&self.path))
            .collect()
    }

    /// A line for each block of which nobody knows whether it is to be run.
    pub(crate) fn mistakes(&self) -> String {
        let mut wrong = String::new();
        for Block { language, line, .. } in self.blocks() {
            let what = match language.split_once(' ') {
                None if language.is_empty() => "a block without a language: sh, text, json, ...",
                Some(("sh", mark)) => match mark.strip_prefix("no-test: ") {
                    Some(reason) if !reason.trim().is_empty() => continue,
                    _ => "a block of commands is `sh`, or `sh no-test: REASON`",
                },
                _ if ["bash", "console", "shell", "shell-session"].contains(&&*language) => {
                    "commands are `sh`, and a session to be read is `text`"
                }
                _ => continue,
            };
            writeln!(wrong, "{}:{}: {what}", self.path, line - 1).unwrap();
        }
        wrong
    }

    /// The text without blocks and code.
    fn prose(&self) -> String {
        let mut open = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.starts_with("```") {
                open = !open;
            } else if !open {
                prose.extend(line.split('`').step_by(2));
                prose.push('\n');
            }
        }
        prose
    }

    /// Where its links go inside of the project.
    pub(crate) fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let targets = prose.split("](").skip(1);
        targets
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target.to_owned())
            .filter(|target| !target.contains("://"))
            .collect()
    }

    /// The names of its headings, as links give them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|line| {
                let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
                let name: String = line.trim_start_matches('#').chars().filter(kept).collect();
                name.trim().to_lowercase().replace(' ', "-")
            })
            .collect()
    }
}

impl Block {
    fn commands(&self, page: &str) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut text = String::new();
        let mut first = self.line;
        for (number, line) in self.lines.iter().enumerate() {
            if text.is_empty() {
                first = self.line + number;
                let bare = line.trim();
                if let Some(words) = bare.strip_prefix("# prints ") {
                    let before = commands
                        .last_mut()
                        .filter(|command| command.prints.is_none());
                    before
                        .unwrap_or_else(|| panic!("{page}:{first}: what prints this?"))
                        .prints = Some(words.to_owned());
                    continue;
                }
                if bare.is_empty() || bare.starts_with('#') {
                    continue;
                }
            }
            text += line;
            text.push('\n');
            if is_whole(&text) {
                let prints = text
                    .trim_end()
                    .split_once(" # prints ")
                    .map(|(_, words)| words.to_owned());
                commands.push(Command {
                    line: first,
                    text: std::mem::take(&mut text),
                    prints,
                });
            }
        }
        assert!(text.is_empty(), "{page}:{first}: no whole command: {text}");
        commands
    }
}

/// Whether a shell would not wait for another line.
fn is_whole(text: &str) -> bool {
    let output = Process::new("bash")
        .args(["-n", "-c", text])
        .output()
        .expect("bash");
    // Of a here-document without its end, it only warns.
    output.status.success() && output.stderr.is_empty() && !text.trim_end().ends_with('\\')
}
