//! Reports the front's errors in the runtime's log: podman shows its user the content of `--log
//! FILE`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::error::Error;

/// Appends the error to the runtime's log, in the format of the runtimes. Failures are ignored: the
/// error is also printed on standard error.
pub(super) fn write(log: &Path, as_json: bool, error: &Error) {
    let Ok(mut file) = OpenOptions::new().append(true).create(true).open(log) else {
        return;
    };
    let message = format!("subuidless: {error}");
    let line = match as_json {
        true => json!({"level": "error", "msg": message, "time": now()}).to_string(),
        false => format!("time=\"{}\" level=error msg={message:?}", now()),
    };
    let _ = writeln!(file, "{line}");
}

/// The time in the format of RFC 3339.
fn now() -> String {
    let mut text = String::new();
    // Cannot fail for a string.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
