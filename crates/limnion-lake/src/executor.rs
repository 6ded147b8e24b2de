//! Who does the arithmetic.

/// A pool of threads for arithmetic: builds and searches run on it, never on the threads that wait for backends.
pub trait Executor: Send + Sync {
    /// Calls `work` once, on the pool or within it, and waits for it.
    fn install(&self, work: &mut (dyn FnMut() + Send));
}

/// The global rayon pool.
#[derive(Debug, Default, Clone, Copy)]
pub struct Global;

impl Executor for Global {
    fn install(&self, work: &mut (dyn FnMut() + Send)) {
        rayon::scope(|_| work());
    }
}

/// [`Executor::install`] of work that gives something.
pub(crate) fn install<R: Send>(executor: &dyn Executor, work: impl FnOnce() -> R + Send) -> Option<R> {
    let (mut work, mut result) = (Some(work), None);
    executor.install(&mut || result = work.take().map(|work| work()));
    result
}
