//! The supplementary groups that a container's user is to have.
//!
//! Runtimes skip setgroups(2) where the kernel denies it, as it does in a user namespace with one
//! mapped id, and say nothing: only the bundle's config.json tells what was wished for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::warn;

use crate::credentials::{EmulatedGid, Id};
use crate::wire::config;

/// The bundle may lie on a file system that does not answer; its container waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// podman's largest are some tens of KiB.
const MAX_CONFIG: u64 = 16 * 1024 * 1024;

/// process.user.additionalGids of a container that is being created.
pub(super) async fn additional(status: &str, bundle: &str) -> Vec<EmulatedGid> {
    let bundle = PathBuf::from(bundle);
    // An exec has the groups of its container. Its own are nowhere to be read.
    if status != "creating" || !bundle.is_absolute() {
        return Vec::new();
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    let config = bundle.join("config.json");
    let path = config.clone();
    // A thread of its own, which may hang for ever without anybody waiting for it.
    let problem = match start(move || {
        // Nobody may be listening any more.
        let _ = tell.send(read(&path));
    }) {
        Err(error) => error.to_string(),
        Ok(_) => match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(Ok(groups))) => return groups,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) | Err(_) => "it cannot be read in time".to_owned(),
        },
    };
    warn!(config = %config.display(), problem, "cannot read the container's additionalGids: it starts without");
    Vec::new()
}

/// Starts a thread, unless too many hang already.
fn start(task: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    const MOST: usize = 32;
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    if RUNNING.fetch_add(1, Ordering::Relaxed) >= MOST {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        return Err(std::io::Error::other(
            "too many others are being read, and do not come to an end",
        ));
    }
    let task = || {
        task();
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    };
    let started = std::thread::Builder::new()
        .name("config.json".to_owned())
        .spawn(task);
    started.map(drop).inspect_err(|_| {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    })
}

fn read(path: &Path) -> std::io::Result<Vec<EmulatedGid>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_CONFIG)
        .read_to_end(&mut bytes)?;
    let config: Map<String, Value> = serde_json::from_slice(&bytes)?;
    let user = config
        .get("process")
        .and_then(Value::as_object)
        .map(config::user)
        .unwrap_or_default();
    let gids = user.additional_gids.into_iter();
    Ok(gids.filter_map(EmulatedGid::new).collect())
}
