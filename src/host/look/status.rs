//! `subuidless status`: lists containers, their processes and their calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::processes::Processes;
use super::table::{Column, lines};
use super::{daemons, shown};
use crate::error::Error;
use crate::wire::ask::{Listener, Report};
use crate::wire::fast::FastPath;
use crate::wire::permissions::Permissions;
use crate::wire::tally::Count;

/// The output of --json; docs/look.md documents its fields.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    daemons: Vec<Daemon>,
    containers: Vec<Container>,
}

#[derive(Debug, Serialize)]
struct Daemon {
    socket: PathBuf,
    pid: u32,
    version: String,
}

#[derive(Debug, Serialize)]
struct Container {
    id: String,
    socket: PathBuf,
    status: String,
    bundle: String,
    since: u64,
    listeners: usize,
    workers: Vec<u32>,
    worker_deaths: u32,
    processes: BTreeSet<u32>,
    fast_path: Option<FastPath>,
    permissions: Option<Permissions>,
    calls: Calls,
    syscalls: Vec<Syscall>,
}

#[derive(Debug, Serialize)]
struct Syscall {
    name: String,
    #[serde(flatten)]
    calls: Calls,
}

/// Counts of calls, and quantiles of their duration in nanoseconds.
#[derive(Debug, Serialize)]
struct Calls {
    total: u64,
    continued: u64,
    answered: u64,
    failed: u64,
    p50_ns: Option<u64>,
    p90_ns: Option<u64>,
    p99_ns: Option<u64>,
}

impl From<&Count> for Calls {
    fn from(count: &Count) -> Self {
        Self {
            total: count.served.total(),
            continued: count.served.continued,
            answered: count.served.answered,
            failed: count.served.failed,
            p50_ns: count.quantile(50),
            p90_ns: count.quantile(90),
            p99_ns: count.quantile(99),
        }
    }
}

/// Asks all daemons. Calls `complain` for those that fail; returns an error if all do, or if nobody
/// listens on `socket`.
pub(crate) fn ask(
    socket: Option<&Path>,
    complain: &mut dyn FnMut(&Error),
) -> Result<Status, Error> {
    let mut status = Status {
        daemons: Vec::new(),
        containers: Vec::new(),
    };
    let processes = Processes::read();
    let mut failures = Vec::new();
    let mut is_flawless = socket.is_none();
    let found = daemons(socket, &mut |error| {
        is_flawless = false;
        complain(error);
    });
    let found = match found {
        // As `docker ps` without a container.
        Err(Error::NobodyListens { .. }) if is_flawless => Vec::new(),
        found => found?,
    };
    for daemon in found {
        let path = daemon.path.clone();
        match daemon.status() {
            Ok(report) => status.add(path, report, &processes),
            Err(error) => failures.push(error),
        }
    }
    if status.daemons.is_empty()
        && let Some(error) = failures.pop()
    {
        return Err(error);
    }
    failures.iter().for_each(complain);
    Ok(status)
}

impl Status {
    fn add(&mut self, socket: PathBuf, report: Report, processes: &Processes) {
        let workers: BTreeSet<u32> = report
            .listeners
            .iter()
            .filter_map(|listener| listener.worker)
            .collect();
        let mut by_id: BTreeMap<&str, Vec<&Listener>> = BTreeMap::new();
        for listener in &report.listeners {
            by_id.entry(&listener.container).or_default().push(listener);
        }
        for (id, mut listeners) in by_id {
            listeners.sort_by_key(|listener| listener.since);
            let Some(first) = listeners.first() else {
                continue;
            };
            self.containers.push(Container {
                id: id.to_owned(),
                socket: socket.clone(),
                status: first.status.clone(),
                bundle: first.bundle.clone(),
                since: first.since,
                listeners: listeners.len(),
                workers: listeners.iter().filter_map(|one| one.worker).collect(),
                worker_deaths: listeners.iter().map(|one| one.deaths).sum(),
                processes: listeners
                    .iter()
                    .flat_map(|one| processes.of(one.namespaces, &workers))
                    .collect(),
                fast_path: first.fast,
                permissions: first.permissions,
                calls: Calls::from(&sum(listeners.iter().map(|one| &one.all))),
                syscalls: syscalls(&listeners),
            });
        }
        self.daemons.push(Daemon {
            socket,
            pid: report.pid,
            version: report.version,
        });
    }

    /// The output without --json: a table of containers, and one of syscalls for each of them.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        if self.containers.is_empty() {
            let daemons = match self.daemons[..] {
                [] => ", and no daemon listens",
                _ => "",
            };
            return format!("no container is served{daemons}\n");
        }
        let rows: Vec<_> = self.containers.iter().map(Container::cells).collect();
        let columns = [
            Column::Text("CONTAINER"),
            Column::Number("SINCE"),
            Column::Number("WORKER"),
            Column::Number("PROCESSES"),
        ];
        // Spare: the second table has them for each syscall.
        let calls = CALLS.map(|column| match column {
            Column::Number(heading @ ("CONTINUED" | "ANSWERED")) => Column::Spare(heading),
            column => column,
        });
        let mut text = lines(&[&columns[..], &calls].concat(), &rows, width);
        for container in &self.containers {
            text += &format!("\n{}\n", shown(&container.id));
            if let Some(fast) = container.fast_path {
                text += &format!("fast path {}\n", fast.sentence());
            }
            if container.permissions == Some(Permissions::Owner) {
                text += "permissions: owner (opening and removing files takes none)\n";
            }
            let rows: Vec<_> = container
                .syscalls
                .iter()
                .map(|syscall| [vec![shown(&syscall.name)], syscall.calls.cells()].concat())
                .collect();
            text += &lines(
                &[&[Column::Text("SYSCALL")], &CALLS[..]].concat(),
                &rows,
                width,
            );
        }
        text
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a Count>) -> Count {
    let mut sum = Count::default();
    counts.for_each(|count| sum.add(count));
    sum
}

/// The syscalls of all listeners, the most frequent ones first.
fn syscalls(listeners: &[&Listener]) -> Vec<Syscall> {
    let mut by_name: BTreeMap<&str, Count> = BTreeMap::new();
    for (name, count) in listeners.iter().flat_map(|listener| &listener.syscalls) {
        by_name.entry(name).or_default().add(count);
    }
    let mut syscalls: Vec<Syscall> = by_name
        .into_iter()
        .map(|(name, count)| Syscall {
            name: name.to_owned(),
            calls: Calls::from(&count),
        })
        .collect();
    syscalls.sort_by_key(|syscall| std::cmp::Reverse(syscall.calls.total));
    syscalls
}

const CALLS: [Column; 7] = [
    Column::Number("CALLS"),
    Column::Number("CONTINUED"),
    Column::Number("ANSWERED"),
    Column::Number("FAILED"),
    Column::Number("P50"),
    Column::Number("P90"),
    Column::Number("P99"),
];

impl Calls {
    fn cells(&self) -> Vec<String> {
        let numbers = [self.total, self.continued, self.answered, self.failed];
        let times = [self.p50_ns, self.p90_ns, self.p99_ns];
        numbers
            .iter()
            .map(u64::to_string)
            .chain(times.map(|time| time.map_or_else(|| "-".to_owned(), latency)))
            .collect()
    }
}

impl Container {
    fn cells(&self) -> Vec<String> {
        let start = UNIX_EPOCH + Duration::from_secs(self.since);
        let since = SystemTime::now().duration_since(start).unwrap_or_default();
        let workers: Vec<String> = self.workers.iter().map(u32::to_string).collect();
        let mut cells = vec![
            shown(&self.id),
            age(since.as_secs()),
            if workers.is_empty() {
                "-".to_owned()
            } else {
                workers.join(",")
            },
            self.processes.len().to_string(),
        ];
        cells.extend(self.calls.cells());
        cells
    }
}

/// A time span in its two largest units.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A duration with at most three digits.
fn latency(nanoseconds: u64) -> String {
    let (unit, scale) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds}ns"),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let (whole, tenth) = (nanoseconds / scale, nanoseconds % scale * 10 / scale);
    if whole < 10 {
        format!("{whole}.{tenth}{unit}")
    } else {
        format!("{whole}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(latency(999), "999ns");
        assert_eq!(latency(1_000), "1.0µs");
        assert_eq!(latency(9_990), "9.9µs");
        assert_eq!(latency(12_300_000), "12ms");
        assert_eq!(latency(3_450_000_000), "3.4s");
        assert_eq!(age(59), "59s");
        assert_eq!(age(61), "1m01s");
        assert_eq!(age(2 * 3600 + 5 * 60), "2h05m");
        assert_eq!(age(86400 * 3 + 3600), "3d01h");
    }
}
