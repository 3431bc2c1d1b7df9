//! config.json of the OCI runtime spec as a JSON value: keys that we do not know are kept.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::handover::ProcessUser;
use crate::error::Error;

/// Returns `user` of a `process` object. Missing ids are 0.
pub(crate) fn user(process: &Map<String, Value>) -> ProcessUser {
    let user = process.get("user");
    let member = |name: &str| user.and_then(|user| user.get(name));
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    let id = |name| member(name).and_then(number).unwrap_or_default();
    let gids = member("additionalGids").and_then(Value::as_array);
    ProcessUser {
        uid: id("uid"),
        gid: id("gid"),
        additional_gids: gids.into_iter().flatten().filter_map(number).collect(),
    }
}

pub(crate) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// Returns the member `name`, an object, and creates it if necessary.
pub(crate) fn object<'a>(
    parent: &'a mut Map<String, Value>,
    name: &str,
) -> &'a mut Map<String, Value> {
    let member = parent.entry(name).or_insert_with(|| json!({}));
    if !member.is_object() {
        *member = json!({});
    }
    match member {
        Value::Object(member) => member,
        _ => unreachable!("an object since the line above"),
    }
}

/// Returns the member `name`, a list, and creates it if necessary.
pub(crate) fn list<'a>(parent: &'a mut Map<String, Value>, name: &str) -> &'a mut Vec<Value> {
    let member = parent.entry(name).or_insert_with(|| json!([]));
    if !member.is_array() {
        *member = json!([]);
    }
    match member {
        Value::Array(member) => member,
        _ => unreachable!("a list since the line above"),
    }
}

/// Returns the path as text. Fails if it is not UTF-8, which JSON cannot represent.
pub(crate) fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| {
        Error::at(
            path,
            std::io::Error::other("the path must be UTF-8, for config.json"),
        )
    })
}

/// Returns the arguments of a command as text. Fails like [`text`].
pub(crate) fn words(words: &[OsString]) -> Result<Vec<String>, Error> {
    words
        .iter()
        .map(|word| text(Path::new(word)).map(str::to_owned))
        .collect()
}
