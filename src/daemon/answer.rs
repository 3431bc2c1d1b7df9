//! Answers `status` and `trace` on the control socket (see `crate::wire::ask`).
//!
//! The client is of the daemon's own user, but may be slow or dead: only the task of its connection
//! waits for it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::debug;

use super::supervised::Supervised;
use super::workers::Workers;
use crate::syscalls::{TABLE, fingerprint};
use crate::wire::ask::{Listener, Report, What};
use crate::wire::tally::Count;

/// The time limit for sending the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The name of the row for calls in no row of the table.
const OTHERS: &str = "others";

pub(super) async fn answer(ask: What, mut connection: UnixStream, workers: &Workers) {
    match ask {
        What::Status => {
            let text = serde_json::to_vec(&report(workers)).unwrap_or_default();
            let said = tokio::time::timeout(PATIENCE, connection.write_all(&text)).await;
            if !matches!(said, Ok(Ok(()))) {
                debug!("the client that asked for the status does not read the answer");
            }
        }
        What::Trace { container, filter } => {
            let now = workers.containers();
            workers
                .tracers
                .serve(connection, now, container, filter)
                .await;
        }
    }
}

fn report(workers: &Workers) -> Report {
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        listeners: workers
            .containers()
            .iter()
            .map(|container| listener(container))
            .collect(),
    }
}

fn listener(container: &Supervised) -> Listener {
    let board = &container.board;
    let mut all = Count::default();
    board.counts().for_each(|count| all.add(&count));
    Listener {
        container: container.handover.id.clone(),
        status: container.handover.status.clone(),
        bundle: container.handover.bundle.clone(),
        since: board.since(),
        worker: container.worker.get(),
        deaths: container.deaths.get(),
        namespaces: board.namespaces(),
        fast: Some(container.handover.service.fast),
        permissions: Some(container.handover.service.permissions),
        all,
        syscalls: syscalls(container),
    }
}

fn syscalls(container: &Supervised) -> Vec<(String, Count)> {
    // A worker of another version counts in the rows of another table: only the sum is meaningful.
    if container.board.table() != fingerprint() {
        return Vec::new();
    }
    container
        .board
        .counts()
        .enumerate()
        .filter(|(_, count)| count.served.total() > 0)
        .map(|(index, count)| {
            let name = TABLE.get(index).map_or(OTHERS, |row| row.name);
            (name.to_owned(), count)
        })
        .collect()
}
