//! Every engine answers as the plainest model does, whatever is done to it.
//!
//! Random scripts of transactions and upkeep run against a model that keeps every version in one list, and against each
//! engine; after each transaction everything that a reader can be asked is compared. `LIMNION_ENGINE_CASES` sets the number
//! of scripts for each engine, for a longer campaign.
#![expect(clippy::expect_used, clippy::panic, reason = "a test may stop at what it did not expect")]

mod check;
mod model;
mod script;

use limnion_store::engine::Engine;
use limnion_store::engine::memory::MemoryEngine;
use limnion_store::engine::sqlite::{Mode, SqliteEngine};
use limnion_store::options::Durability;
use proptest::test_runner::{Config, TestRunner};

use script::{Run, scripts};

fn campaign(cases: u32, start: impl Fn() -> Run) {
    let cases = std::env::var("LIMNION_ENGINE_CASES").map_or(cases, |cases| cases.parse().expect("a number"));
    let config = Config { cases, max_shrink_iters: 4000, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&scripts(), |script| {
        start().play(&script);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn the_engine_in_memory_answers_as_the_model_does() {
    campaign(150, || Run::new(Box::new(MemoryEngine::new()), None));
}

#[test]
fn the_engine_on_disk_answers_as_the_model_does() {
    campaign(20, || {
        let folder = tempfile::tempdir().expect("a folder");
        // What the operating system does with its caches is tested elsewhere; here a sync would only take time.
        let mode = Mode { wal: true, durability: Durability::None };
        let path = folder.path().join("store.limn");
        let open = move || -> Box<dyn Engine> {
            assert!(folder.path().is_dir());
            Box::new(SqliteEngine::open(&path, mode).expect("open"))
        };
        Run::new(open(), Some(Box::new(open)))
    });
}

#[test]
fn an_engine_in_memory_has_nothing_to_copy() {
    let error = MemoryEngine::new()
        .reader()
        .backup("anywhere".as_ref(), &limnion_types::Job::new())
        .expect_err("no file");
    assert_eq!(error.kind(), limnion_types::ErrorKind::Internal);
}
