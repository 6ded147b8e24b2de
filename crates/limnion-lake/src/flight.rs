//! Work that is done once, however many wait for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use limnion_types::{Error, ErrorKind, Job, Result};

use crate::entry::Entry;

/// Who waits looks up so often whether somebody has told him to stop.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// What comes of a flight: an entry, and the moment from which on it is known to be current.
#[derive(Clone)]
pub(crate) struct Landed {
    pub(crate) entry: Arc<Entry>,
    pub(crate) as_of: Instant,
}

type Then = Box<dyn FnOnce(Result<Landed>) + Send>;

/// An entry on its way.
pub(crate) struct Flight {
    /// Threads do not survive a fork: a flight of the parent never lands in the child.
    process: u32,
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<Landed>>,
    waiting: Vec<Then>,
}

impl Flight {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { process: std::process::id(), state: Mutex::default(), landed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it belongs to another process.
    pub(crate) fn is_foreign(&self) -> bool {
        self.process != std::process::id()
    }

    /// Tells everybody. The first word counts.
    pub(crate) fn land(&self, outcome: Result<Landed>) {
        let mut state = self.state();
        if state.outcome.is_some() {
            return;
        }
        let told = outcome.clone();
        state.outcome = Some(outcome);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.landed.notify_all();
        for then in waiting {
            then(told.clone());
        }
    }

    /// Calls `then` when it has landed: now, or later from the thread that does the work. It must be quick.
    pub(crate) fn then(&self, then: impl FnOnce(Result<Landed>) + Send + 'static) {
        let mut state = self.state();
        match state.outcome.clone() {
            Some(outcome) => {
                drop(state);
                then(outcome);
            }
            None => state.waiting.push(Box::new(then)),
        }
    }

    /// Waits until it has landed; not beyond the deadline, nor when the job is cancelled. The flight goes on.
    pub(crate) fn wait(&self, deadline: Option<Instant>, job: &Job) -> Result<Landed> {
        let mut state = self.state();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            job.check()?;
            let left = match deadline {
                Some(deadline) => deadline
                    .checked_duration_since(Instant::now())
                    .filter(|left| !left.is_zero())
                    .ok_or_else(late)?,
                None => TICK,
            };
            let waited = self.landed.wait_timeout(state, left.min(TICK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The error of who has waited too long.
pub(crate) fn late() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the answer did not come in time")
        .suggest("give it more time; what is being built goes on, and later searches find it")
}
