//! What `subuidless status` says.

use serde_json::Value;

use super::place::Place;
use super::run::run;
use super::runtime::Running;

pub(crate) fn status(place: &Place) -> Value {
    let mut command = place.subuidless(["status", "--json"]);
    serde_json::from_str(&run(&mut command).ok()).expect("status --json is JSON")
}

pub(crate) fn container<'a>(status: &'a Value, running: &Running) -> &'a Value {
    status["containers"]
        .as_array()
        .expect("a list of containers")
        .iter()
        .find(|container| container["id"] == running.id.as_str())
        .unwrap_or_else(|| panic!("{} is not in {status}", running.id))
}
