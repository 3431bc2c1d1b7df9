//! Log settings, and rate limiting: a target that can cause a log line again and again must not
//! fill a disk with it.
//!
//! Each call site that logs has a budget of lines, which is refilled slowly. Lines beyond it are
//! dropped and counted; the count is logged once a minute, and at exit. Debug and trace lines are
//! not limited: the user has asked for them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The level and format of the log, which always goes to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub(crate) struct Settings {
    /// Log messages of this level and above: error, warn, info, debug, trace or off
    #[arg(long = "log-level", value_name = "LEVEL", default_value = "info")]
    pub(crate) level: LevelFilter,

    /// Log plain text, or one JSON object per line
    #[arg(long = "log-format", value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            level: LevelFilter::INFO,
            format: Format::Text,
        }
    }
}

impl Settings {
    /// Starts logging. Does nothing in a fork of a process that had started it.
    pub(crate) fn start(self) {
        if tracing::dispatcher::has_been_set() {
            return;
        }
        let builder = tracing_subscriber::fmt()
            .with_max_level(self.level)
            .with_target(false)
            // Otherwise a failed write to standard error would be reported there, which panics.
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        match self.format {
            Format::Text => {
                let builder = builder.with_ansi(std::io::stderr().is_terminal());
                builder.finish().with(Sparing).init();
            }
            Format::Json => {
                let builder = builder.json().flatten_event(true);
                builder.finish().with(Sparing).init();
            }
        }
    }

    /// The level and format as arguments for another process of this program.
    pub(crate) fn to_words(self) -> [String; 2] {
        let format = match self.format {
            Format::Text => "text",
            Format::Json => "json",
        };
        [self.level.to_string(), format.to_owned()]
    }

    pub(crate) fn parse(level: &OsStr, format: &OsStr) -> Option<Self> {
        Some(Self {
            level: level.to_str()?.parse().ok()?,
            format: match format.to_str()? {
                "text" => Format::Text,
                "json" => Format::Json,
                _ => return None,
            },
        })
    }
}

/// The budget of a call site, in lines.
const MOST: u32 = 100;
/// The time in which the budget grows by one line.
const REFILL: Duration = Duration::from_secs(6);
/// The time between two reports of dropped lines.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);
/// The tracing target of this module's own lines, which are not limited.
const OWN: &str = "sparing";

static LEDGER: LazyLock<Mutex<Ledger>> = LazyLock::new(|| Mutex::new(Ledger::default()));

/// The layer that drops lines beyond a budget.
#[derive(Debug)]
pub(crate) struct Sparing;

impl<S: Subscriber> Layer<S> for Sparing {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == OWN {
            return true;
        }
        let now = Instant::now();
        let verdict = locked(|ledger| ledger.judge(metadata.callsite(), now, || Kind::of(event)));
        // After the lock is released: this logs.
        say_what_is_due(now);
        if verdict == Verdict::Last {
            warn!(
                target: OWN,
                "many lines like the next one: further ones are left out, and counted"
            );
        }
        verdict != Verdict::LeaveOut
    }
}

/// Whether dropped lines are still to be reported.
pub(crate) fn owes() -> bool {
    locked(|ledger| ledger.kinds.values().any(|kind| kind.left_out > 0))
}

/// Reports dropped lines if a report is due. To be called from time to time: there may be no
/// further log line that would trigger the report.
pub(crate) fn say_what_is_due(now: Instant) {
    if locked(|ledger| ledger.is_due(now)) {
        say_all();
    }
}

/// Reports all dropped lines.
pub(crate) fn say_all() {
    for (is_error, left_out, like) in locked(Ledger::take) {
        match is_error {
            true => error!(target: OWN, left_out, like, "lines were left out"),
            false => warn!(target: OWN, left_out, like, "lines were left out"),
        }
    }
}

fn locked<T>(action: impl FnOnce(&mut Ledger) -> T) -> T {
    action(&mut LEDGER.lock().unwrap_or_else(PoisonError::into_inner))
}

#[derive(Debug, Default)]
struct Ledger {
    kinds: HashMap<Identifier, Kind>,
    said: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Log,
    /// Log this line; the next ones are dropped.
    Last,
    LeaveOut,
}

impl Ledger {
    fn judge(&mut self, place: Identifier, now: Instant, kind: impl FnOnce() -> Kind) -> Verdict {
        let kind = self.kinds.entry(place).or_insert_with(kind);
        kind.refill(now);
        kind.budget = match kind.budget.checked_sub(1) {
            Some(budget) => budget,
            None => {
                kind.left_out += 1;
                // The first report is due one period from now.
                self.said.get_or_insert(now);
                return Verdict::LeaveOut;
            }
        };
        match kind.budget {
            0 if !kind.is_scarce => {
                kind.is_scarce = true;
                Verdict::Last
            }
            _ => Verdict::Log,
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let said = self.said;
        let is_due = said.is_some_and(|said| now.duration_since(said) >= PERIOD);
        if is_due {
            self.said = None;
        }
        is_due
    }

    fn take(&mut self) -> Vec<(bool, u64, String)> {
        let kinds = self.kinds.values_mut().filter(|kind| kind.left_out > 0);
        let kinds = kinds.map(|kind| {
            let left_out = std::mem::take(&mut kind.left_out);
            (kind.is_error, left_out, kind.message.clone())
        });
        kinds.collect()
    }
}

/// The lines of one call site.
#[derive(Debug)]
struct Kind {
    is_error: bool,
    message: String,
    budget: u32,
    refilled: Option<Instant>,
    /// The budget was exhausted, and has not been completely refilled since.
    is_scarce: bool,
    left_out: u64,
}

impl Kind {
    fn of(event: &Event<'_>) -> Self {
        let mut message = Message(String::new());
        event.record(&mut message);
        Self {
            is_error: *event.metadata().level() == Level::ERROR,
            message: message.0,
            budget: MOST,
            refilled: None,
            is_scarce: false,
            left_out: 0,
        }
    }

    fn refill(&mut self, now: Instant) {
        let last = *self.refilled.get_or_insert(now);
        let more = now.duration_since(last).as_secs() / REFILL.as_secs();
        let more = u32::try_from(more).unwrap_or(MOST).min(MOST);
        if more > 0 {
            self.budget = (self.budget + more).min(MOST);
            self.refilled = Some(now);
        }
        self.is_scarce &= self.budget < MOST;
    }
}

/// The message of an event, without its fields: fixed text of the program.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        const MOST_CHARS: usize = 120;
        if field.name() == "message" {
            let text = format!("{value:?}");
            self.0 = text.chars().take(MOST_CHARS).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        Kind {
            is_error: false,
            message: "x".to_owned(),
            budget: MOST,
            refilled: None,
            is_scarce: false,
            left_out: 0,
        }
    }

    #[test]
    fn what_goes_beyond_a_budget_is_counted_and_the_budget_grows_again() {
        let mut ledger = Ledger::default();
        let place = tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields: );
        let place = tracing::Callsite::metadata(place).callsite();
        let start = Instant::now();
        let mut judge = |now| ledger.judge(place.clone(), now, kind);
        for _ in 1..MOST {
            assert_eq!(judge(start), Verdict::Log);
        }
        assert_eq!(judge(start), Verdict::Last);
        for _ in 0..5 {
            assert_eq!(judge(start), Verdict::LeaveOut);
        }
        let later = start + REFILL;
        assert_eq!(judge(later), Verdict::Log);
        assert_eq!(judge(later), Verdict::LeaveOut);
        assert!(!ledger.is_due(start + PERIOD - REFILL));
        assert!(ledger.is_due(start + PERIOD));
        assert_eq!(ledger.take(), [(false, 6, "x".to_owned())]);
        assert_eq!(ledger.take(), []);
        // Completely refilled.
        let much_later = start + REFILL * 2 * MOST;
        assert_eq!(ledger.judge(place.clone(), much_later, kind), Verdict::Log);
        let kind = &ledger.kinds[&place];
        assert!(!kind.is_scarce && kind.budget == MOST - 1, "{kind:?}");
    }
}
