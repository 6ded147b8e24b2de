//! Who may touch an index, and when: many readers or one writer, first come, first served.
//!
//! A thread never sleeps on a gate. Who cannot enter leaves a closure in the line, which is called with the pass once it
//! is its turn. So a wait can be given up (Ctrl-C, a cancelled await), a thread of the pool is never blocked by work that
//! needs the pool itself, and a thousand waiting awaits cost no thread.
//!
//! After `fork` the child has the parent's memory but none of its threads: the passes they held are never given back.
//! A gate notices that ([`forks`]) and starts a new line without touching the old one, whose lock may be held for ever.
//! Where a writer was inside at that moment, the value may be half changed, and the gate says so from then on.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limnion_types::{Error, ErrorKind, Result};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the first process and this one.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Called in a child process right after `fork`.
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// A value that many may read or one may change.
pub(crate) struct Gate<T> {
    value: UnsafeCell<T>,
    line: AtomicPtr<Line<T>>,
}

// SAFETY: the value is reached only through a `Pass`, of which there are many that read or one that writes (`State`).
unsafe impl<T: Send + Sync> Sync for Gate<T> {}

struct Line<T> {
    /// The process that this line belongs to.
    forks: u32,
    /// A writer is inside.
    writing: AtomicBool,
    /// A writer did not come to its end: the value cannot be trusted.
    torn: AtomicBool,
    state: Mutex<State<T>>,
}

struct State<T> {
    readers: usize,
    writer: bool,
    waiting: VecDeque<Ticket<T>>,
}

enum Ticket<T> {
    Read(Box<dyn FnOnce(Result<Reader<T>>) + Send>),
    Write(Box<dyn FnOnce(Result<Writer<T>>) + Send>),
}

impl<T> Line<T> {
    fn new(torn: bool) -> *mut Self {
        Box::into_raw(Box::new(Self {
            forks: forks(),
            writing: AtomicBool::new(false),
            torn: AtomicBool::new(torn),
            state: Mutex::new(State { readers: 0, writer: false, waiting: VecDeque::new() }),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<()> {
        if self.torn.load(Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Internal,
                "the index was left half changed by a fork or by a defect of limnion",
            )
            .suggest("load or build it again; fork before other threads change an index"));
        }
        Ok(())
    }
}

impl<T> State<T> {
    fn enter(&mut self, write: bool) -> bool {
        let free = !self.writer && (!write || self.readers == 0);
        if free {
            self.writer = write;
            self.readers += usize::from(!write);
        }
        free
    }
}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value: UnsafeCell::new(value), line: AtomicPtr::new(Line::new(false)) })
    }

    /// A pass to read, where nobody has to be waited for.
    #[inline]
    pub(crate) fn try_read(self: &Arc<Self>) -> Option<Result<Reader<T>>> {
        let line = self.line();
        let mut state = line.state();
        let entered = state.waiting.is_empty() && state.enter(false);
        drop(state);
        entered.then(|| {
            let reader = Reader(Pass { gate: self.clone(), forks: line.forks });
            line.check().map(|()| reader)
        })
    }

    /// Calls `then` with a pass to read: now, or later from the thread that makes way. `then` is to be quick.
    pub(crate) fn read(self: &Arc<Self>, then: impl FnOnce(Result<Reader<T>>) + Send + 'static) {
        self.enter(Ticket::Read(Box::new(then)));
    }

    /// Calls `then` with a pass to write: now, or later from the thread that makes way. `then` is to be quick.
    pub(crate) fn write(self: &Arc<Self>, then: impl FnOnce(Result<Writer<T>>) + Send + 'static) {
        self.enter(Ticket::Write(Box::new(then)));
    }

    fn enter(self: &Arc<Self>, ticket: Ticket<T>) {
        let line = self.line();
        let mut state = line.state();
        if state.waiting.is_empty() && state.enter(ticket.writes()) {
            drop(state);
            self.admit(line, ticket);
        } else {
            state.waiting.push_back(ticket);
        }
    }

    fn admit(self: &Arc<Self>, line: &Line<T>, ticket: Ticket<T>) {
        let pass = Pass { gate: self.clone(), forks: line.forks };
        match ticket {
            Ticket::Read(then) => {
                let reader = Reader(pass);
                then(line.check().map(|()| reader));
            }
            Ticket::Write(then) => {
                let writer = Writer(pass);
                line.writing.store(true, Ordering::Release);
                then(line.check().map(|()| writer));
            }
        }
    }

    fn leave(self: &Arc<Self>, line: &Line<T>, leave: impl FnOnce(&mut State<T>)) {
        let mut admitted = Vec::new();
        let mut state = line.state();
        leave(&mut state);
        while let Some(ticket) = state.waiting.pop_front() {
            if !state.enter(ticket.writes()) {
                state.waiting.push_front(ticket);
                break;
            }
            admitted.push(ticket);
        }
        drop(state);
        for ticket in admitted {
            self.admit(line, ticket);
        }
    }

    /// The line of this process.
    #[inline]
    fn line(&self) -> &Line<T> {
        let current = self.line.load(Ordering::Acquire);
        // SAFETY: a line lives as long as the gate, or for ever where a fork has replaced it.
        let line = unsafe { &*current };
        if line.forks == forks() { line } else { self.renew(current) }
    }

    #[cold]
    fn renew(&self, old: *mut Line<T>) -> &Line<T> {
        // SAFETY: as in `line`; only atomics of the old line are read.
        let torn = unsafe { (*old).torn.load(Ordering::Relaxed) || (*old).writing.load(Ordering::Acquire) };
        let fresh = Line::new(torn);
        match self.line.compare_exchange(old, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just made; the gate keeps it.
            Ok(_) => unsafe { &*fresh },
            Err(current) => {
                // SAFETY: `fresh` was never shared; `current` was put there by another thread of this process.
                unsafe {
                    drop(Box::from_raw(fresh));
                    &*current
                }
            }
        }
    }
}

impl<T> Drop for Gate<T> {
    fn drop(&mut self) {
        let line = *self.line.get_mut();
        // SAFETY: nobody else has the gate any more; a line of the parent process is left alone, as `renew` does.
        unsafe {
            if (*line).forks == forks() {
                drop(Box::from_raw(line));
            }
        }
    }
}

impl<T> Ticket<T> {
    fn writes(&self) -> bool {
        matches!(self, Ticket::Write(_))
    }
}

struct Pass<T> {
    gate: Arc<Gate<T>>,
    forks: u32,
}

/// Leave to read, until it is dropped.
pub(crate) struct Reader<T>(Pass<T>);

/// Leave to read and change, until it is dropped.
pub(crate) struct Writer<T>(Pass<T>);

impl<T> Deref for Reader<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while a reader is inside, no writer is.
        unsafe { &*self.0.gate.value.get() }
    }
}

impl<T> Deref for Writer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: while a writer is inside, nobody else is.
        unsafe { &*self.0.gate.value.get() }
    }
}

impl<T> DerefMut for Writer<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: while a writer is inside, nobody else is.
        unsafe { &mut *self.0.gate.value.get() }
    }
}

impl<T> Drop for Reader<T> {
    #[inline]
    fn drop(&mut self) {
        if self.0.forks == forks() {
            self.0.gate.leave(self.0.gate.line(), |state| state.readers -= 1);
        }
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        if self.0.forks == forks() {
            let line = self.0.gate.line();
            line.writing.store(false, Ordering::Release);
            if std::thread::panicking() {
                line.torn.store(true, Ordering::Relaxed);
            }
            self.0.gate.leave(line, |state| state.writer = false);
        }
    }
}
