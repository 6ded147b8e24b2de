//! The stores that are open in this process, found without a lock: by a child right after `fork`, and at exit.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use limnion_store::Store;

/// One place in a list that only grows. A place that is free is taken by the next store.
struct Place {
    store: AtomicPtr<Store>,
    /// Who is looking at `store` just now.
    readers: AtomicU32,
    taken: AtomicBool,
    next: *const Place,
}

static FIRST: AtomicPtr<Place> = AtomicPtr::new(null_mut());

/// A store that is found as long as this lives.
pub(crate) struct Living {
    store: *mut Store,
    place: &'static Place,
}

// SAFETY: the pointer is that of a box which `Living` owns; a store may be shared and sent.
unsafe impl Send for Living {}
// SAFETY: as above.
unsafe impl Sync for Living {}

// SAFETY: `next` is written before the place is shared, and never again.
unsafe impl Sync for Place {}

fn places() -> impl Iterator<Item = &'static Place> {
    let mut at: *const Place = FIRST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: places are never freed.
        let place: &'static Place = unsafe { at.as_ref() }?;
        at = place.next;
        Some(place)
    })
}

fn vacant() -> &'static Place {
    if let Some(place) = places().find(|place| !place.taken.swap(true, Ordering::AcqRel)) {
        return place;
    }
    let fresh = Box::leak(Box::new(Place {
        store: AtomicPtr::new(null_mut()),
        readers: AtomicU32::new(0),
        taken: AtomicBool::new(true),
        next: null_mut(),
    }));
    let mut first = FIRST.load(Ordering::Acquire);
    loop {
        fresh.next = first;
        match FIRST.compare_exchange(first, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return fresh,
            Err(current) => first = current,
        }
    }
}

impl Living {
    pub(crate) fn new(store: Store) -> Self {
        let place = vacant();
        let store = Box::into_raw(Box::new(store));
        place.store.store(store, Ordering::Release);
        Self { store, place }
    }

    #[inline]
    pub(crate) fn store(&self) -> &Store {
        // SAFETY: the box lives until `end` or `leak` takes `self`.
        unsafe { &*self.store }
    }

    fn hide(&self) {
        self.place.store.store(null_mut(), Ordering::SeqCst);
        while self.place.readers.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now(); // `all` is cloning it
        }
        self.place.taken.store(false, Ordering::Release);
    }

    /// Drops the store.
    pub(crate) fn end(self) {
        self.hide();
        // SAFETY: made by `Box::into_raw`, and nobody can reach it any more: it is hidden, and nobody is looking.
        drop(unsafe { Box::from_raw(self.store) });
    }

    /// Leaves the store where it is: its threads and locks are those of another process.
    pub(crate) fn leak(self) {
        self.hide();
    }
}

/// The stores that are open.
pub(crate) fn all() -> Vec<Store> {
    let clone = |place: &'static Place| {
        place.readers.fetch_add(1, Ordering::SeqCst);
        // SAFETY: who drops a store hides it first, and then waits until nobody looks at its place.
        let store = unsafe { place.store.load(Ordering::SeqCst).as_ref() }.cloned();
        place.readers.fetch_sub(1, Ordering::SeqCst);
        store
    };
    places().filter_map(clone).collect()
}

/// Has each store that is open let go of what a child must not hold. To be called in a child right after `fork`, while it
/// has but one thread. Takes no lock.
pub(crate) fn forked() {
    for place in places() {
        place.readers.store(0, Ordering::SeqCst);
        // SAFETY: a store is hidden before it is dropped, and there is no other thread.
        if let Some(store) = unsafe { place.store.load(Ordering::SeqCst).as_ref() } {
            store.forked();
        }
        // It is the parent's: the child must not wait for its threads, at exit for example.
        place.store.store(null_mut(), Ordering::SeqCst);
    }
}
