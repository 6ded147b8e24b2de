//! What the layers promise: each adds its habit, and hides or changes nothing else of the backend inside.
#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use limnion_lake::{
    Backend, Changes, Description, Generation, Id, Ids, Limit, LocalBackend, Metered, Retry, Rows, Sink,
    Timed,
};
use limnion_types::{Error, ErrorKind, Filter, Job, Metric, Result};
use proptest::prelude::*;

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Taken {
    begun: Option<Description>,
    rows: Vec<Rows>,
    refuses: bool,
}

impl Sink for Taken {
    fn begin(&mut self, description: &Description) -> Result<()> {
        assert!(self.begun.is_none(), "begun twice");
        self.begun = Some(description.clone());
        Ok(())
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        assert!(self.begun.is_some(), "rows before the beginning");
        if self.refuses {
            return Err(Error::new(ErrorKind::DimensionMismatch, "these rows are not as was said"));
        }
        self.rows.push(rows);
        Ok(())
    }
}

fn description() -> Description {
    Description {
        dim: 2,
        rows: 3,
        generation: Generation::Name("seven".into()),
        metric: Some(Metric::Cosine),
        source: "test://here".to_owned(),
    }
}

fn rows(first: u64) -> Rows {
    Rows { ids: Ids::Numbers(vec![first, first + 1]), vectors: vec![1.0, 2.0, 3.0, 4.0] }
}

type Midway = Box<dyn Fn() -> Result<()> + Send + Sync>;
type Before = Box<dyn Fn(&str) -> Result<()> + Send + Sync>;

/// Notes each call with its arguments and answers something of its own, after what `before` does.
struct Scripted {
    calls: Mutex<Vec<String>>,
    before: Before,
    /// Happens when a pull is half through.
    midway: Midway,
    quick: bool,
}

impl Scripted {
    fn new(before: impl Fn(&str) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { calls: Mutex::default(), before: Box::new(before), midway: Box::new(|| Ok(())), quick: false }
    }

    fn midway(mut self, midway: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        self.midway = Box::new(midway);
        self
    }

    fn note(&self, call: &str) -> Result<()> {
        self.calls.lock().unwrap().push(call.to_owned());
        (self.before)(call)
    }

    fn seen(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

impl Backend for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn collections(&self) -> Result<Vec<String>> {
        self.note("collections")?;
        Ok(vec!["a".to_owned(), "b".to_owned()])
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        self.note(&format!("describe {collection}"))?;
        Ok(description())
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        self.note(&format!("generation {collection}"))?;
        Ok(Generation::Number(7))
    }

    fn is_quick(&self) -> bool {
        self.quick
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        self.note(&format!("pull {collection}"))?;
        sink.begin(&description())?;
        sink.push(rows(0))?;
        job.advance(2);
        (self.midway)()?;
        job.check()?;
        sink.push(rows(2))?;
        job.advance(2);
        Ok(())
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        self.note(&format!("changes {collection} {since}"))?;
        let generation = Generation::Number(8);
        Ok(Some(Changes { generation, upserts: rows(5), removed: Ids::Numbers(vec![1]) }))
    }

    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        if self.note(&format!("when_changed {collection} {from}")).is_ok() {
            wake();
        }
        true
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        self.note(&format!("select {collection} {filter:?}"))?;
        Ok(Some((Ids::Numbers(vec![4]), Generation::Number(7))))
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        self.note(&format!("text_search {collection} {query} {k}"))?;
        Ok(Some(vec![(Id::Number(4), 0.5)]))
    }
}

/// Asks everything that can be asked.
fn ask_all(backend: &dyn Backend) -> String {
    let generation = Generation::Name("six".into());
    let woken = Arc::new(AtomicBool::new(false));
    let wake = Box::new({
        let woken = woken.clone();
        move || woken.store(true, Ordering::SeqCst)
    });
    let (mut taken, job) = (Taken::default(), Job::new());
    let pulled = backend.pull("p", &mut taken, &job);
    format!(
        "{:?}",
        (
            backend.name(),
            backend.collections(),
            backend.describe("d"),
            backend.generation("g"),
            backend.is_quick(),
            (pulled, taken.begun, taken.rows, job.done()),
            backend.changes("c", &generation),
            (backend.when_changed("w", &generation, wake), woken.load(Ordering::SeqCst)),
            backend.select("s", &Filter::negate(Filter::none())),
            backend.text_search("t", "words", 3),
        )
    )
}

fn wrapped(backend: Arc<dyn Backend>, layer: u8) -> Arc<dyn Backend> {
    match layer {
        0 => Arc::new(Retry::new(backend, 3).pauses(MILLI, MILLI)),
        1 => Arc::new(Limit::new(backend, 1)),
        2 => Arc::new(Timed::new(backend, LONG)),
        _ => Arc::new(Metered::new(backend)),
    }
}

fn piled(inside: &Arc<Scripted>, layers: &[u8]) -> Arc<dyn Backend> {
    layers.iter().fold(inside.clone(), |inner: Arc<dyn Backend>, &layer| wrapped(inner, layer))
}

fn broken() -> Error {
    Error::new(ErrorKind::Backend, "backend \"scripted\": broken").suggest("mend it")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_question_goes_through_any_pile_of_layers_and_its_answer_comes_back(
        layers in prop::collection::vec(0..4_u8, 0..5), quick: bool,
    ) {
        let plain = Scripted { quick, ..Scripted::new(|_| Ok(())) };
        let expected = ask_all(&plain);
        let inside = Arc::new(Scripted { quick, ..Scripted::new(|_| Ok(())) });
        prop_assert_eq!(ask_all(&*piled(&inside, &layers)), expected);
        prop_assert_eq!(&*inside.calls.lock().unwrap(), &*plain.calls.lock().unwrap());
    }

    #[test]
    fn errors_of_other_kinds_than_backend_pass_all_layers_as_they_are(
        layers in prop::collection::vec(0..4_u8, 0..5), kind in 0..ErrorKind::ALL.len(),
    ) {
        let kind = ErrorKind::ALL[kind];
        prop_assume!(kind != ErrorKind::Backend);
        let error = Error::new(kind, "as it is").suggest("nothing");
        let inside = Arc::new(Scripted::new({ let error = error.clone(); move |_| Err(error.clone()) }));
        let pile = piled(&inside, &layers);
        prop_assert_eq!(pile.describe("x").unwrap_err(), error.clone());
        prop_assert_eq!(pile.pull("x", &mut Taken::default(), &Job::new()).unwrap_err(), error);
        prop_assert_eq!(inside.seen(), 2, "tried again");
    }

    #[test]
    fn as_many_failures_as_there_are_attempts_but_one_are_not_seen(attempts in 1..6_u32, failures in 0..8_usize) {
        let left = Arc::new(AtomicUsize::new(failures));
        let inside = Arc::new(Scripted::new(move |_| {
            let more = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if more { Err(broken()) } else { Ok(()) }
        }));
        let retry = Retry::new(inside.clone(), attempts).pauses(MILLI / 10, MILLI / 10);
        let answer = retry.generation("g");
        if failures < attempts as usize {
            prop_assert_eq!(answer, Ok(Generation::Number(7)));
            prop_assert_eq!(inside.seen(), failures + 1);
        } else {
            let error = answer.unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::Backend);
            prop_assert!(error.message().contains("broken"), "{}", error);
            prop_assert_eq!(error.suggestion(), Some("mend it"));
            prop_assert_eq!(inside.seen(), attempts as usize);
        }
    }
}

#[test]
fn a_pull_that_fails_before_its_first_row_is_repeated_and_one_that_fails_later_is_not() {
    let first = AtomicBool::new(true);
    let inside =
        Arc::new(Scripted::new(
            move |_| {
                if first.swap(false, Ordering::SeqCst) { Err(broken()) } else { Ok(()) }
            },
        ));
    let mut taken = Taken::default();
    Retry::new(inside.clone(), 3).pauses(MILLI, MILLI).pull("p", &mut taken, &Job::new()).unwrap();
    assert_eq!((taken.rows.len(), inside.seen()), (2, 2));

    let inside = Arc::new(Scripted::new(|_| Ok(())).midway(|| Err(broken())));
    let mut taken = Taken::default();
    let error = Retry::new(inside.clone(), 3).pull("p", &mut taken, &Job::new()).unwrap_err();
    assert_eq!((error, taken.rows.len(), inside.seen()), (broken(), 1, 1));
}

#[test]
fn cancelling_ends_the_pause_before_the_next_attempt() {
    let retry =
        Retry::new(Arc::new(Scripted::new(|_| Err(broken()))), u32::MAX).pauses(LONG * 1000, LONG * 1000);
    let job = Job::new();
    thread::scope(|scope| {
        let pull = scope.spawn(|| retry.pull("p", &mut Taken::default(), &job));
        thread::sleep(MILLI * 60);
        let since = Instant::now();
        job.cancel();
        assert_eq!(pull.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(since.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn pauses_differ_so_that_many_do_not_come_again_together() {
    let arrivals = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let inside = Arc::new(Scripted::new(|_| Err(broken())));
                let retry = Retry::new(inside, 2).pauses(MILLI * 200, MILLI * 200);
                let since = Instant::now();
                retry.describe("d").unwrap_err();
                arrivals.lock().unwrap().insert(since.elapsed().as_millis() / 10);
            });
        }
    });
    assert!(arrivals.lock().unwrap().len() >= 3);
}

#[test]
fn no_more_calls_are_inside_at_once_than_the_limit_and_all_get_through() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let backend = Scripted::new({
        let (inside, most) = (inside.clone(), most.clone());
        move |_| {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(MILLI * 5);
            inside.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let limit = Limit::new(Arc::new(backend), 3);
    thread::scope(|scope| {
        for number in 0..24 {
            let limit = &limit;
            scope.spawn(move || match number % 3 {
                0 => drop(limit.describe("d").unwrap()),
                1 => drop(limit.collections().unwrap()),
                _ => limit.pull("p", &mut Taken::default(), &Job::new()).unwrap(),
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[test]
fn those_who_wait_come_in_the_order_in_which_they_came() {
    let open = Arc::new(AtomicBool::new(false));
    let backend = Arc::new(Scripted::new({
        let open = open.clone();
        move |_| {
            while !open.load(Ordering::SeqCst) {
                thread::sleep(MILLI);
            }
            Ok(())
        }
    }));
    let limit = Limit::new(backend.clone(), 1);
    thread::scope(|scope| {
        for number in 0..6 {
            let limit = &limit;
            scope.spawn(move || limit.describe(&number.to_string()).unwrap());
            thread::sleep(MILLI * 40);
        }
        open.store(true, Ordering::SeqCst);
    });
    let order: Vec<String> = (0..6).map(|number| format!("describe {number}")).collect();
    assert_eq!(*backend.calls.lock().unwrap(), order);
}

#[test]
fn who_is_cancelled_or_panics_takes_no_place_with_him() {
    let blocked = Arc::new(AtomicBool::new(true));
    let backend = Arc::new(Scripted::new({
        let blocked = blocked.clone();
        move |call| {
            assert!(!call.contains("panic"), "on purpose");
            while call.contains("block") && blocked.load(Ordering::SeqCst) {
                thread::sleep(MILLI);
            }
            Ok(())
        }
    }));
    let limit = Limit::new(backend, 1);
    thread::scope(|scope| {
        assert!(scope.spawn(|| limit.describe("panic")).join().is_err());
        let first = scope.spawn(|| limit.describe("block"));
        thread::sleep(MILLI * 20);
        let job = Job::new();
        let error = thread::scope(|inner| {
            let waiting = inner.spawn(|| limit.pull("p", &mut Taken::default(), &job));
            thread::sleep(MILLI * 20);
            job.cancel();
            waiting.join().unwrap().unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        blocked.store(false, Ordering::SeqCst);
        first.join().unwrap().unwrap();
    });
    limit.describe("d").unwrap();
}

#[test]
fn a_backend_that_hangs_is_a_deadline_exceeded_and_what_it_says_later_is_not_heard() {
    let stuck = Arc::new(AtomicBool::new(true));
    let hang = {
        let stuck = stuck.clone();
        move || {
            while stuck.load(Ordering::SeqCst) {
                thread::sleep(MILLI);
            }
        }
    };
    let backend = Scripted::new({
        let hang = hang.clone();
        move |call| {
            if !call.starts_with("pull") {
                hang();
            }
            Ok(())
        }
    })
    .midway(move || {
        hang();
        Ok(())
    });
    let timed = Timed::new(Arc::new(backend), MILLI * 60).hanging(3);

    let (mut taken, since) = (Taken::default(), Instant::now());
    let error = timed.pull("p", &mut taken, &Job::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(taken.rows.len(), 1);
    let error = timed.describe("d").unwrap_err();
    assert!(error.message().contains("describe took longer than 60ms"), "{error}");
    assert!(!timed.when_changed("w", &Generation::Number(1), Box::new(|| ())));
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(timed.left_behind(), 3);

    // There are as many threads behind as may be.
    let since = Instant::now();
    assert_eq!(timed.collections().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert!(since.elapsed() < MILLI * 50);

    stuck.store(false, Ordering::SeqCst);
    let end = Instant::now() + LONG;
    while timed.left_behind() > 0 && Instant::now() < end {
        thread::sleep(MILLI);
    }
    assert_eq!(timed.left_behind(), 0);
    assert_eq!(taken.rows.len(), 1, "rows after the end");
    timed.describe("d").unwrap();
}

#[test]
fn a_slow_sink_does_not_count_against_the_backend() {
    struct Slow(Taken);
    impl Sink for Slow {
        fn begin(&mut self, description: &Description) -> Result<()> {
            thread::sleep(MILLI * 400);
            self.0.begin(description)
        }

        fn push(&mut self, rows: Rows) -> Result<()> {
            thread::sleep(MILLI * 400);
            self.0.push(rows)
        }
    }
    let timed = Timed::new(Arc::new(Scripted::new(|_| Ok(()))), MILLI * 300);
    let mut slow = Slow(Taken::default());
    timed.pull("p", &mut slow, &Job::new()).unwrap();
    assert_eq!(slow.0.rows.len(), 2);
}

#[test]
fn a_backend_that_panics_is_an_error_of_kind_backend() {
    let backend = Arc::new(Scripted::new(|_| panic!("on purpose")));
    let timed = Timed::new(backend.clone(), LONG);
    for error in
        [timed.describe("d").unwrap_err(), timed.pull("p", &mut Taken::default(), &Job::new()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(error.message().contains("\"scripted\"") && error.message().contains("panicked"), "{error}");
    }
    let midway = Arc::new(Scripted::new(|_| Ok(())).midway(|| panic!("on purpose")));
    let error = Timed::new(midway, LONG).pull("p", &mut Taken::default(), &Job::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);

    let metered = Arc::new(Metered::new(backend));
    thread::scope(|scope| assert!(scope.spawn(|| metered.describe("d")).join().is_err()));
    assert_eq!((metered.metrics().calls, metered.metrics().errors), (1, 1));
}

#[test]
fn a_sink_that_finds_a_lie_about_the_dimension_ends_the_pull_with_its_own_words() {
    for layer in 0..4 {
        let inside = Arc::new(Scripted::new(|_| Ok(())));
        let mut taken = Taken { refuses: true, ..Taken::default() };
        let error = wrapped(inside.clone(), layer).pull("p", &mut taken, &Job::new()).unwrap_err();
        assert_eq!(error, Error::new(ErrorKind::DimensionMismatch, "these rows are not as was said"));
        assert_eq!(inside.seen(), 1);
    }
}

/// Its pull ends when it is told to stop.
struct Waits(Arc<AtomicBool>);

impl Backend for Waits {
    fn name(&self) -> &str {
        "waits"
    }

    fn collections(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn describe(&self, _: &str) -> Result<Description> {
        Ok(description())
    }

    fn pull(&self, _: &str, _: &mut dyn Sink, job: &Job) -> Result<()> {
        while job.check().is_ok() {
            thread::sleep(MILLI);
        }
        self.0.store(true, Ordering::SeqCst);
        job.check()
    }
}

#[test]
fn cancelling_a_timed_pull_reaches_the_backend() {
    let (job, heard) = (Job::new(), Arc::new(AtomicBool::new(false)));
    let timed = Timed::new(Arc::new(Waits(heard.clone())), LONG);
    thread::scope(|scope| {
        let pull = scope.spawn(|| timed.pull("p", &mut Taken::default(), &job));
        thread::sleep(MILLI * 20);
        job.cancel();
        assert_eq!(pull.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
    let end = Instant::now() + LONG;
    while !heard.load(Ordering::SeqCst) && Instant::now() < end {
        thread::sleep(MILLI);
    }
    assert!(heard.load(Ordering::SeqCst));
}

#[test]
fn the_meter_counts_calls_errors_and_rows() {
    let local = LocalBackend::new("hot");
    local.upsert("docs", &[1, 2, 3], &[1.0, 2.0, 3.0], 1).unwrap();
    let metered = Metered::new(Arc::new(local));
    metered.collections().unwrap();
    metered.pull("docs", &mut Taken::default(), &Job::new()).unwrap();
    metered.describe("none").unwrap_err();
    let metrics = metered.metrics();
    assert_eq!((metrics.calls, metrics.errors, metrics.pulls, metrics.rows), (3, 1, 1, 3));
    assert!(metrics.time > Duration::ZERO);
}
