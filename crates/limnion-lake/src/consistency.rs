//! How fresh an answer has to be.

use std::time::Duration;

/// How fresh the answers of a lake, or of one collection in it, have to be. *Current* is what the backend says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The answer is of a generation that was current at some moment between the beginning and the end of the search: who
    /// has seen a write return finds it.
    #[default]
    Fresh,
    /// The answer is of a generation that was current at some moment since so long before the search began. The backend is
    /// asked in the background once half of that time has passed, so that searches seldom wait.
    Eventual(Duration),
    /// The answer is of the generation of the first search, until somebody refreshes or invalidates.
    Frozen,
}
