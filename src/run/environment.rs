//! `--env` and `--env-file`: the variables of a command.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error};

/// One word of --env.
pub(super) fn variable(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('=') {
        true => Err("a variable needs a name".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Those of --env-file, and then those of --env.
pub(super) fn variables(files: &[PathBuf], words: &[String]) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for file in files {
        all.extend(of_file(file)?);
    }
    all.extend_from_slice(words);
    Ok(all)
}

/// A file is read as podman reads it: quotes and blanks behind the `=` belong to the value, and a
/// name alone that is not set here is left out.
fn of_file(path: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(path).at(path)?;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default().trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            let reason = format!("line {number} is neither NAME=VALUE nor NAME");
            return Err(Error::at(path, io::Error::other(reason)));
        }
        match line.split_once('=') {
            Some((_, value)) => found.push(format!("{name}={value}")),
            None => found.extend(env::var(name).map(|value| format!("{name}={value}"))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_values_names_and_comments() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            variables(std::slice::from_ref(&file), &["A=last".to_owned()])
        };
        let text = "# none\n\n A=b c\nB=\"x=y\" \nE=\nNO_SUCH_VARIABLE_HERE\nCARGO_PKG_NAME\n";
        let name = format!("CARGO_PKG_NAME={}", env!("CARGO_PKG_NAME"));
        let expected = ["A=b c", "B=\"x=y\" ", "E=", &name, "A=last"];
        assert_eq!(read(text).unwrap(), expected);
        for wrong in ["=x", "A=b\nexport B=c", "two words"] {
            let said = read(wrong).unwrap_err().to_string();
            assert!(said.contains("line ") && said.contains("file"), "{said}");
        }
    }
}
