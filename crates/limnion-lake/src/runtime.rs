//! The tokio runtime of the process, on which requests over the network run.
//!
//! It is made when it is first needed, and made anew in a forked child: there the parent's has no threads any more, so it
//! is left alone and never dropped. Nothing of tokio is seen outside: threads that need an answer wait for it.

use std::future::Future;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use limnion_types::{Error, ErrorKind, Job, Result};
use once_cell::race::OnceBox;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

/// How often a waiting thread looks whether its job is cancelled.
const TICK: Duration = Duration::from_millis(50);
/// Threads of the runtime: they wait for sockets, and copy.
const WORKERS: usize = 2;

/// A value that each process makes for itself. A forked child makes its own and never touches or drops the parent's, of
/// which locks may be held and connections shared. Nobody waits here for another thread, for a fork may have taken it away.
pub(crate) struct PerProcess<T> {
    first: OnceBox<Slot<T>>,
}

/// The value of one process, and where a child of it has its own.
struct Slot<T> {
    process: u32,
    value: Arc<T>,
    next: OnceBox<Slot<T>>,
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        if self.process != process::id() {
            std::mem::forget(Arc::clone(&self.value));
        }
    }
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { first: OnceBox::new() }
    }

    /// The value of this process. Of threads that make it at once, one keeps its own.
    pub(crate) fn get(&self, make: impl Fn() -> Result<T>) -> Result<Arc<T>> {
        let (mut place, mut newest) = (&self.first, None);
        loop {
            while let Some(slot) = place.get() {
                newest = Some(slot);
                place = &slot.next;
            }
            if let Some(slot) = newest.filter(|slot| slot.process == process::id()) {
                return Ok(slot.value.clone());
            }
            let value = Arc::new(make()?);
            let _ = place.set(Box::new(Slot { process: process::id(), value, next: OnceBox::new() }));
        }
    }
}

/// A runtime that does not wait for its tasks when it goes.
struct Workers(Option<Runtime>);

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn workers() -> Result<Arc<Workers>> {
    static RUNTIME: PerProcess<Workers> = PerProcess::new();
    RUNTIME.get(|| {
        let built = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("limnion-io")
            .enable_all()
            .build();
        built.map(|runtime| Workers(Some(runtime))).map_err(|error| {
            Error::new(ErrorKind::Internal, format!("threads for the network cannot be started: {error}"))
        })
    })
}

/// An answer that is on its way. Whoever drops it does not want it any more.
pub(crate) struct Pending<T> {
    answer: Receiver<T>,
    task: AbortHandle,
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> Pending<T> {
    /// Waits for the answer, or until the job is cancelled, on any thread, even one of another runtime.
    pub(crate) fn wait(self, job: Option<&Job>) -> Result<T> {
        loop {
            match self.answer.recv_timeout(TICK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => job.map_or(Ok(()), Job::check)?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(ErrorKind::Internal, "a request ended without an answer"));
                }
            }
        }
    }
}

/// Begins something on the runtime.
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<Pending<T>> {
    let workers = workers()?;
    let runtime = workers.0.as_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "the runtime is gone"))?;
    let (tell, answer) = sync_channel(1);
    let task = runtime.spawn(async move {
        // Nobody may wait any more.
        let _ = tell.send(future.await);
    });
    Ok(Pending { answer, task: task.abort_handle() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_from_any_thread_and_from_inside_another_runtime() {
        assert_eq!(spawn(async { 1 }).unwrap().wait(None), Ok(1));
        let other = Builder::new_current_thread().build().unwrap();
        assert_eq!(other.block_on(async { spawn(async { 2 }).unwrap().wait(None) }), Ok(2));
    }

    #[test]
    fn a_cancelled_job_does_not_wait_and_a_panic_is_an_error() {
        let job = Job::new();
        job.cancel();
        let error = spawn(std::future::pending::<()>()).unwrap().wait(Some(&job)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let error = spawn::<()>(async { panic!("on purpose") }).unwrap().wait(None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn of_many_threads_that_make_a_value_all_get_the_same() {
        let value = PerProcess::new();
        let all: Vec<Arc<u128>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| value.get(|| Ok(crate::names::unique())).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.windows(2).all(|two| Arc::ptr_eq(&two[0], &two[1])));
    }
}
