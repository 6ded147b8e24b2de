//! What the store promises when things go wrong: processes that are killed, files that are damaged, disks that fail.
//!
//! Everyday runs take a sample of each campaign; `make campaigns` runs them whole. `docs/trust.md` has the figures.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may stop at what it did not expect, and tells what it has tried"
)]

mod crash;
mod damage;
mod faults;
mod power;
mod workload;
