//! The way out of the interpreter, and back.
//!
//! Until Python 3.14 a thread that comes back while the interpreter ends is ended by unwinding its stack, which frames of Rust do not
//! survive: the process aborts. So every thread that leaves comes back through here, and once the end has begun it does
//! not come back at all. Only the thread that ends the interpreter still does.

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::Python;

/// Who ends the interpreter.
static CLOSED_BY: OnceLock<ThreadId> = OnceLock::new();
/// Threads between the door and the interpreter.
static ON_THE_WAY: AtomicUsize = AtomicUsize::new(0);

/// [`Python::detach`], from which nobody comes back into an interpreter that ends.
pub(crate) trait Door {
    /// Runs `work` while other threads have the interpreter.
    fn outside<R: Send>(self, work: impl FnOnce() -> R + Send) -> R;
}

impl Door for Python<'_> {
    #[inline]
    fn outside<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        #[expect(clippy::disallowed_methods, reason = "this is the door")]
        let result = self.detach(|| {
            let result = work();
            enter();
            result
        });
        ON_THE_WAY.fetch_sub(1, Ordering::Release);
        result
    }
}

/// Waits for ever, once the interpreter ends.
#[inline]
fn enter() {
    ON_THE_WAY.fetch_add(1, Ordering::SeqCst);
    if CLOSED_BY.get().is_some_and(|closer| *closer != thread::current().id()) {
        ON_THE_WAY.fetch_sub(1, Ordering::SeqCst);
        loop {
            thread::park();
        }
    }
}

/// Closes the door for all threads but this one, and waits for those that are on their way in. To be called without the
/// interpreter, which they need.
pub(crate) fn close() {
    CLOSED_BY.get_or_init(|| thread::current().id());
    for turn in 0.. {
        if ON_THE_WAY.load(Ordering::SeqCst) == 0 {
            return;
        }
        if turn < 100 {
            spin_loop();
        } else {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Called in a child right after `fork`: whoever was on the way was so in the parent.
pub(crate) fn forked() {
    ON_THE_WAY.store(0, Ordering::SeqCst);
}
