//! The control of a long job: how far it is, and whether it should stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{Error, ErrorKind, Result};

/// Shared between whoever runs a long job and whoever waits for it.
///
/// The worker calls [`Job::advance`] and [`Job::check`] often (at least every 50 ms of work); the waiter reads
/// [`Job::done`] and may [`Job::cancel`].
#[derive(Debug, Default)]
pub struct Job {
    done: AtomicU64,
    cancelled: AtomicBool,
}

impl Job {
    /// A job that has done nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to the steps that are done.
    pub fn advance(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::Relaxed);
    }

    /// The steps that are done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Asks the worker to stop at its next [`Job::check`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// An error of kind [`ErrorKind::Cancelled`] once somebody has called [`Job::cancel`].
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
        }
        Ok(())
    }
}
