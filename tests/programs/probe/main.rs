//! A program that makes system calls that concern owners and ids, and prints every result, one line
//! per call.
//!
//! Run as real root with all ids mapped, it is the oracle; under subuidless it must print the same,
//! byte for byte. So it prints nothing that may differ between two runs that behave alike, and
//! checks no result: the oracle's results are right.
//!
//! `probe --dir DIR [--seed N] [--ops M] [--skip GROUP,...] [--only GROUP,...] [--functions P]`;
//! DIR is the absolute path of an empty directory. Of a hundred calls, P are made by functions of
//! the C library where there is one that does nothing else. First come the groups of `directed/`, then the group
//! `random`: M operations that depend on the seed.

mod directed;
mod print;
mod probe;
mod random;
#[expect(
    unsafe_code,
    reason = "raw system calls with pointers of every kind are what the probe is made of"
)]
mod sys;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use probe::{Probe, SHOW};
use sys::{Arg, calls};

struct Options {
    directory: Vec<u8>,
    seed: u64,
    operations: u64,
    skip: Vec<String>,
    only: Vec<String>,
    functions: u64,
}

fn options() -> Option<Options> {
    let mut options = Options {
        directory: Vec::new(),
        seed: 1,
        operations: 0,
        skip: Vec::new(),
        only: Vec::new(),
        functions: 0,
    };
    let mut arguments = std::env::args_os().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next()?;
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        match option.to_str()? {
            "--dir" => options.directory = value.into_vec(),
            "--seed" => options.seed = value.to_str()?.parse().ok()?,
            "--ops" => options.operations = value.to_str()?.parse().ok()?,
            "--functions" => options.functions = value.to_str()?.parse().ok()?,
            "--skip" => options.skip = list(value.to_str()?),
            "--only" => options.only = list(value.to_str()?),
            _ => return None,
        }
    }
    options.directory.starts_with(b"/").then_some(options)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, first, .., line] = arguments.as_slice()
        && first.as_encoded_bytes() == SHOW
    {
        Probe::heir(&line.to_string_lossy()).introduce();
        return ExitCode::SUCCESS;
    }
    let Some(options) = options() else {
        sys::write_line(
            b"usage: probe --dir /DIR [--seed N] [--ops M] [--skip GROUP,...] [--only GROUP,...] \
              [--functions P]\n",
        );
        return ExitCode::from(2);
    };
    sys::make_by_functions(options.functions);
    let mut p = Probe::new(options.directory, options.skip, options.only);
    p.quiet(calls::UMASK, &[Arg::Octal(0o022)]);
    directed::run(&mut p);
    random::run(&mut p, options.seed, options.operations);
    p.say("end");
    ExitCode::SUCCESS
}
