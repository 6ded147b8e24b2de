//! A part of a long job, which counts for so many of the steps that the job's waiter knows of.

use std::sync::atomic::{AtomicU64, Ordering};

use limnion_types::{Job, Result};

/// So many steps of a job, done in units of another size. Shared between threads.
pub(crate) struct Stage<'a> {
    job: &'a Job,
    steps: u64,
    units: u64,
    done: AtomicU64,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(job: &'a Job, steps: u64, units: u64) -> Self {
        Self { job, steps, units: units.max(1), done: AtomicU64::new(0) }
    }

    /// The same steps in other units; nothing may have been done yet.
    pub(crate) fn in_units(&self, units: u64) -> Self {
        Self::new(self.job, self.steps, units)
    }

    pub(crate) fn job(&self) -> &'a Job {
        self.job
    }

    /// An error once the job is cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        self.job.check()
    }

    /// Adds to the units that are done; more than there are count for nothing.
    pub(crate) fn advance(&self, units: u64) {
        let before = self.done.fetch_add(units, Ordering::Relaxed);
        self.job.advance(self.upto(before + units) - self.upto(before));
    }

    fn upto(&self, units: u64) -> u64 {
        (u128::from(self.steps) * u128::from(units.min(self.units)) / u128::from(self.units)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_a_stage_add_up_whatever_the_units() {
        for (steps, units) in [(10, 3), (3, 10), (7, 7), (5, 0), (0, 5)] {
            let job = Job::new();
            let stage = Stage::new(&job, steps, 1).in_units(units);
            (0..units + 4).for_each(|_| stage.advance(1));
            assert_eq!(job.done(), steps);
        }
    }
}
