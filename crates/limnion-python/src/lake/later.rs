//! A value that is there, or will be.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

enum State<T> {
    Nothing,
    There(T),
    Wanted(Box<dyn FnOnce(T) + Send>),
    Over,
}

/// A value that somebody puts here once, and somebody else takes once: at once where it is there, else when it comes.
pub(crate) struct Later<T>(Arc<Mutex<State<T>>>);

impl<T: Send + 'static> Later<T> {
    /// A place for the value, and who puts it there, from any thread.
    pub(crate) fn new() -> (Self, impl FnOnce(T) + Send + 'static) {
        let place = Arc::new(Mutex::new(State::Nothing));
        let later = Self(place.clone());
        let put = move |value| {
            let mut state = later.state();
            match std::mem::replace(&mut *state, State::Over) {
                State::Nothing => *state = State::There(value),
                State::Wanted(then) => {
                    drop(state);
                    then(value);
                }
                State::There(_) | State::Over => {}
            }
        };
        (Self(place), put)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, where it is there.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Over) {
            State::There(value) => Some(value),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Calls `then` with the value: now, or from whoever puts it there.
    pub(crate) fn then(&self, then: impl FnOnce(T) + Send + 'static) {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Over) {
            State::There(value) => {
                drop(state);
                then(value);
            }
            State::Nothing => *state = State::Wanted(Box::new(then)),
            State::Wanted(_) | State::Over => {}
        }
    }
}
