//! What the lake knows of one collection of one backend.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use limnion_types::Result;

use crate::cache::Number;
use crate::consistency::Consistency;
use crate::entry::Entry;
use crate::flight::{Flight, Landed};
use crate::stats::CollectionStats;

/// A collection of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The name of the backend.
    pub backend: Arc<str>,
    /// The name of the collection.
    pub collection: Arc<str>,
}

impl Target {
    /// A collection of a backend.
    pub fn new(backend: &str, collection: &str) -> Self {
        Self { backend: backend.into(), collection: collection.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.collection)
    }
}

/// Which entry a collection has, since when it is known to be current, and who is about to renew it.
pub(crate) struct Slot {
    pub(crate) target: Target,
    pub(crate) counters: Counters,
    born: Instant,
    state: Mutex<State>,
}

struct State {
    number: Option<Number>,
    /// How often everything that was known was given up.
    epoch: u64,
    /// The entry was current at this moment.
    checked: Instant,
    flight: Option<Arc<Flight>>,
    consistency: Option<Consistency>,
    pinned: bool,
}

/// What has happened to a collection.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) primes: AtomicU64,
    pub(crate) updates: AtomicU64,
    pub(crate) shared: AtomicU64,
    pub(crate) invalidations: AtomicU64,
    pub(crate) errors: AtomicU64,
    prime_micros: AtomicU64,
    last_prime_micros: AtomicU64,
}

impl Counters {
    pub(crate) fn primed(&self, time: Duration) {
        let micros = time.as_micros() as u64;
        self.primes.fetch_add(1, Ordering::Relaxed);
        self.prime_micros.fetch_add(micros, Ordering::Relaxed);
        self.last_prime_micros.store(micros, Ordering::Relaxed);
    }
}

impl Slot {
    pub(crate) fn new(target: Target) -> Self {
        let born = Instant::now();
        let state = State {
            number: None,
            epoch: 0,
            checked: crate::lake::long_ago(),
            flight: None,
            consistency: None,
            pinned: false,
        };
        Self { target, counters: Counters::default(), born, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the collection was first asked for.
    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    pub(crate) fn number(&self) -> Option<Number> {
        self.state().number
    }

    pub(crate) fn take_number(&self) -> Option<Number> {
        self.state().number.take()
    }

    /// Takes another entry, unless an epoch has begun since; gives the one that is not needed.
    pub(crate) fn replace_number(&self, number: Number, epoch: u64) -> Option<Number> {
        let mut state = self.state();
        if state.epoch == epoch { state.number.replace(number) } else { Some(number) }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// Gives up what is known, and what is under way.
    pub(crate) fn begin_epoch(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.flight = None;
        state.checked = crate::lake::long_ago();
    }

    pub(crate) fn checked(&self) -> Instant {
        self.state().checked
    }

    pub(crate) fn set_checked(&self, at: Instant) {
        let mut state = self.state();
        state.checked = state.checked.max(at);
    }

    pub(crate) fn consistency(&self, usual: Consistency) -> Consistency {
        self.state().consistency.unwrap_or(usual)
    }

    pub(crate) fn set_consistency(&self, consistency: Option<Consistency>) {
        self.state().consistency = consistency;
    }

    /// Whether somebody has set something for this collection alone.
    pub(crate) fn is_set(&self) -> bool {
        let state = self.state();
        state.pinned || state.consistency.is_some()
    }

    pub(crate) fn pinned(&self) -> bool {
        self.state().pinned
    }

    pub(crate) fn set_pinned(&self, pinned: bool) {
        self.state().pinned = pinned;
    }

    /// The flight that is under way, or a new one, and whether it is new: then the caller has to begin it.
    pub(crate) fn flight(&self) -> (Arc<Flight>, bool) {
        let mut state = self.state();
        match &state.flight {
            Some(flight) if !flight.is_foreign() => (flight.clone(), false),
            _ => {
                let flight = Flight::new();
                state.flight = Some(flight.clone());
                (flight, true)
            }
        }
    }

    /// A flight is over: the next one may begin, and then everybody hears of it.
    pub(crate) fn land(&self, flight: &Arc<Flight>, outcome: Result<Landed>) {
        let mut state = self.state();
        let is_mine = state.flight.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, flight));
        if is_mine {
            state.flight = None;
        }
        drop(state);
        if is_mine && outcome.is_err() {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        flight.land(outcome);
    }

    pub(crate) fn stats(&self, entry: Option<&Entry>) -> CollectionStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (checked, pinned, consistency) = {
            let state = self.state();
            (state.checked, state.pinned, state.consistency)
        };
        let body = entry.map(Entry::read);
        CollectionStats {
            target: self.target.clone(),
            rows: body.as_ref().map(|body| body.len() as u64),
            generation: body.as_ref().map(|body| body.origin.generation.to_string()),
            bytes: entry.map_or(0, |entry| entry.bytes() as u64),
            age: entry.map(|_| checked.elapsed()),
            pinned,
            consistency,
            hits: of(&counters.hits),
            misses: of(&counters.misses),
            primes: of(&counters.primes),
            updates: of(&counters.updates),
            shared: of(&counters.shared),
            invalidations: of(&counters.invalidations),
            errors: of(&counters.errors),
            prime_time: Duration::from_micros(of(&counters.prime_micros)),
            last_prime_time: Duration::from_micros(of(&counters.last_prime_micros)),
        }
    }
}
