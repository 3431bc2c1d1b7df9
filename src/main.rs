//! `subuidless`: see the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    subuidless::main()
}
