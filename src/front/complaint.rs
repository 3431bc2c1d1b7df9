//! What goes wrong here, told where the runtime would have told it: podman shows its user what
//! stands in `--log FILE`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::error::Error;

/// Adds a line to the runtime's log, in the runtimes' own form of JSON. It is told on standard
/// error as well, so nothing is lost where there can be no log.
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

/// RFC 3339
fn now() -> String {
    let mut text = String::new();
    // Into a string nothing fails.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
