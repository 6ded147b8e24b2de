//! Who waits for the next commit. A wait that is given up leaves nothing behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limnion_store::{Seq, Store};

type Waiter = Box<dyn FnOnce() + Send>;

/// The bell of a store: the store is asked once for all who wait.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The store has been asked, and has not answered yet.
    armed: bool,
    waiting: Vec<(u64, Waiter)>,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number to wait under, and to give up by.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Calls `waiter` once when there may be a commit after `after`, or when the store closes. It may be called too early.
    pub(crate) fn wait(
        self: &Arc<Self>,
        store: &Store,
        after: Seq,
        number: u64,
        waiter: impl FnOnce() + Send + 'static,
    ) {
        let mut state = self.state();
        state.waiting.push((number, Box::new(waiter)));
        let armed = std::mem::replace(&mut state.armed, true);
        drop(state);
        if !armed {
            let bell = self.clone();
            store.when_after(after, move || bell.ring());
        } else if store.head().map_or(true, |(head, _)| head > after) {
            // What the store was asked for may lie further in the past, and has been answered in between.
            self.ring_for(number);
        }
    }

    /// Forgets a waiter.
    pub(crate) fn give_up(&self, number: u64) {
        drop(self.take(number));
    }

    fn take(&self, number: u64) -> Option<Waiter> {
        let mut state = self.state();
        let at = state.waiting.iter().position(|(known, _)| *known == number)?;
        Some(state.waiting.swap_remove(at).1)
    }

    fn ring_for(&self, number: u64) {
        if let Some(waiter) = self.take(number) {
            waiter();
        }
    }

    fn ring(&self) {
        let mut state = self.state();
        state.armed = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waiter) in waiting {
            waiter();
        }
    }
}
