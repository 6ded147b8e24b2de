//! Writes that nobody waits for yet: `db["ns/key"] = value`. The next call on the database waits for them, and raises what
//! went wrong.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use limnion_types::{Error, Result};

type Waiter = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
pub(crate) struct Queue {
    /// Writes that are under way, and one more where something went wrong that nobody has heard of.
    open: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    under_way: usize,
    error: Option<Error>,
    waiting: Vec<Waiter>,
}

impl Queue {
    /// Whether there is anything to wait for or to hear of.
    #[inline]
    pub(crate) fn busy(&self) -> bool {
        self.open.load(Ordering::Acquire) != 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &State) {
        self.open.store(state.under_way + usize::from(state.error.is_some()), Ordering::Release);
    }

    /// A write begins.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        state.under_way += 1;
        self.publish(&state);
    }

    /// A write is through.
    pub(crate) fn end<R>(&self, outcome: Result<R>) {
        let mut state = self.state();
        state.under_way -= 1;
        if let Err(error) = outcome {
            state.error.get_or_insert(error);
        }
        let through = state.under_way == 0;
        let waiting = if through { std::mem::take(&mut state.waiting) } else { Vec::new() };
        // The first who waits hears of it.
        let mut error = if waiting.is_empty() { None } else { state.error.take() };
        self.publish(&state);
        drop(state);
        for waiter in waiting {
            waiter(error.take().map_or(Ok(()), Err));
        }
    }

    /// Calls `then` once all writes are through: now, or from the writer's thread. `then` is to be quick.
    pub(crate) fn settled(&self, then: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.state();
        if state.under_way > 0 {
            state.waiting.push(Box::new(then));
            return;
        }
        let error = state.error.take();
        self.publish(&state);
        drop(state);
        then(error.map_or(Ok(()), Err));
    }
}
