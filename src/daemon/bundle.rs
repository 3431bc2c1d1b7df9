//! What the bundle's config.json says of a container that no front has announced: the supplementary
//! groups of its user, whether it has the fast path, and which permissions are checked.
//!
//! In a user namespace with one mapped id the kernel denies setgroups(2), and runtimes skip it
//! silently: only config.json has the requested groups.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::warn;

use crate::credentials::{EmulatedGid, Id};
use crate::wire::config;
use crate::wire::fast;
use crate::wire::handover::{Origin, Service};
use crate::wire::permissions::Permissions;

/// The time limit for reading: the bundle may be on a file system that does not respond, and the
/// container waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// The bytes that are read; podman's largest files have some tens of KiB.
const MAX_CONFIG: u64 = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Noted {
    /// process.user.additionalGids
    pub(super) groups: Vec<EmulatedGid>,
    pub(super) service: Service,
}

/// Reads the config.json of a container that is being created. For an exec no file says anything.
pub(super) async fn read(status: &str, bundle: &str) -> Noted {
    let bundle = PathBuf::from(bundle);
    if status != "creating" || !bundle.is_absolute() {
        return Noted::default();
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    let config = bundle.join("config.json");
    let path = config.clone();
    // In a thread, which may hang for ever without blocking the daemon.
    let problem = match start(move || {
        // Fails after the timeout.
        let _ = tell.send(noted(&path));
    }) {
        Err(error) => error.to_string(),
        Ok(_) => match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(Ok(noted))) => return noted,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) | Err(_) => "timed out".to_owned(),
        },
    };
    warn!(
        config = %config.display(),
        problem,
        "cannot read what config.json says of the container: it has no supplementary groups and no \
         fast path, and all permissions are checked"
    );
    Noted::default()
}

/// Starts a thread. Fails if too many hang already.
fn start(task: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    const MOST: usize = 32;
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    if RUNNING.fetch_add(1, Ordering::Relaxed) >= MOST {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        return Err(std::io::Error::other(
            "too many other files are being read and do not respond",
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

fn noted(path: &Path) -> std::io::Result<Noted> {
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
    Ok(Noted {
        groups: gids.filter_map(EmulatedGid::new).collect(),
        service: Service {
            origin: Origin::Runtime,
            fast: fast::of_config(&config),
            permissions: Permissions::of_config(&config)
                .map_err(std::io::Error::other)?
                .unwrap_or_default(),
            ..Service::default()
        },
    })
}
