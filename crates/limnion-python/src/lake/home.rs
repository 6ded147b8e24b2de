//! The lake of this process, and what belongs to it beside its indexes.
//!
//! After `fork` the child has the parent's memory but none of its threads: a lock that one of them held is held for ever.
//! So the child gets a lake of its own over the same backends, and leaves the parent's alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limnion_lake::{Backend, Consistency, Executor, Lake, Settings, Target};
use limnion_types::{Error, ErrorKind, Result};
use pyo3::prelude::*;

use crate::backends::PythonBackend;
use crate::door::Door as _;
use crate::errors::{OrRaise, exception};
use crate::gate::forks;
use crate::pool;

/// Arithmetic of the lake runs where all of ours does.
pub(crate) struct OurPool;

impl Executor for OurPool {
    fn install(&self, work: &mut (dyn FnMut() + Send)) {
        pool::install(work);
    }
}

/// A backend as Python registered it.
pub(crate) struct Registered {
    pub(crate) object: Py<PyAny>,
    pub(crate) backend: Arc<dyn Backend>,
    /// The same, where it is a class of somebody's own.
    pub(crate) own: Option<Arc<PythonBackend>>,
}

/// Who wants an index to stay.
#[derive(Default, Clone, Copy)]
struct Pins {
    pinned: bool,
    sessions: usize,
}

struct Process {
    forks: u32,
    lake: Lake,
}

/// What the instances of `limnion.Lake` stand on.
pub(crate) struct Home {
    settings: Settings,
    process: AtomicPtr<Process>,
    /// Only looked at by threads that are attached, and never across Python code: nobody who forks leaves it locked.
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    backends: BTreeMap<String, Registered>,
    pins: HashMap<Target, Pins>,
    consistencies: HashMap<Target, Consistency>,
}

impl Home {
    pub(crate) fn new(settings: Settings) -> Result<Arc<Self>> {
        pool::prepare()?; // without it no answer could be delivered
        let process = AtomicPtr::new(Self::process(&settings)?);
        Ok(Arc::new(Self { settings, process, notes: Mutex::default() }))
    }

    fn process(settings: &Settings) -> Result<*mut Process> {
        let lake = Lake::new(settings.clone(), Arc::new(OurPool))?;
        Ok(Box::into_raw(Box::new(Process { forks: forks(), lake })))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lake of this process.
    #[inline]
    pub(crate) fn lake(&self) -> Result<&Lake> {
        let current = self.process.load(Ordering::Acquire);
        // SAFETY: a process lives as long as its home, or for ever where a fork has replaced it.
        let process = unsafe { &*current };
        if process.forks == forks() { Ok(&process.lake) } else { self.renew(current) }
    }

    #[cold]
    fn renew(&self, old: *mut Process) -> Result<&Lake> {
        pool::prepare()?;
        let fresh = Self::process(&self.settings)?;
        // SAFETY: just made.
        let lake = unsafe { &(*fresh).lake };
        let notes = self.notes();
        for registered in notes.backends.values() {
            lake.register(registered.backend.clone())?;
        }
        for (target, pins) in &notes.pins {
            lake.pin(target, pins.pinned || pins.sessions > 0)?;
        }
        for (target, consistency) in &notes.consistencies {
            lake.set_consistency(target, Some(*consistency))?;
        }
        drop(notes);
        match self.process.compare_exchange(old, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(lake),
            Err(current) => {
                // SAFETY: `fresh` was never shared; `current` was put there by another thread of this process.
                unsafe {
                    drop(Box::from_raw(fresh));
                    Ok(&(*current).lake)
                }
            }
        }
    }

    pub(crate) fn register(&self, py: Python<'_>, registered: Registered) -> PyResult<()> {
        let lake = self.lake().or_raise(py)?;
        let name = registered.backend.name().to_owned();
        let backend = registered.backend.clone();
        py.outside(|| lake.register(backend)).or_raise(py)?;
        self.notes().backends.insert(name, registered);
        Ok(())
    }

    pub(crate) fn unregister(&self, py: Python<'_>, name: &str) -> PyResult<Option<Registered>> {
        let lake = self.lake().or_raise(py)?;
        py.outside(|| lake.unregister(name)).or_raise(py)?;
        let mut notes = self.notes();
        notes.pins.retain(|target, _| *target.backend != *name);
        notes.consistencies.retain(|target, _| *target.backend != *name);
        Ok(notes.backends.remove(name))
    }

    /// What `look` makes of each backend, by name.
    pub(crate) fn each<R>(&self, look: impl Fn(&Registered) -> R) -> Vec<(String, R)> {
        let notes = self.notes();
        notes.backends.iter().map(|(name, registered)| (name.clone(), look(registered))).collect()
    }

    /// Pins an index, or lets go of it: for its own sake, or for a session's.
    pub(crate) fn pin(&self, target: &Target, pinned: bool, session: bool) -> Result<()> {
        let lake = self.lake()?;
        let mut notes = self.notes();
        let pins = notes.pins.entry(target.clone()).or_default();
        match (session, pinned) {
            (false, _) => pins.pinned = pinned,
            (true, true) => pins.sessions += 1,
            (true, false) => pins.sessions = pins.sessions.saturating_sub(1),
        }
        let wanted = pins.pinned || pins.sessions > 0;
        if !wanted {
            notes.pins.remove(target);
        }
        drop(notes);
        lake.pin(target, wanted)
    }

    pub(crate) fn set_consistency(&self, target: &Target, consistency: Option<Consistency>) -> Result<()> {
        self.lake()?.set_consistency(target, consistency)?;
        let mut notes = self.notes();
        match consistency {
            Some(consistency) => notes.consistencies.insert(target.clone(), consistency),
            None => notes.consistencies.remove(target),
        };
        Ok(())
    }

    /// The exception that belongs to an error; what a backend raised is its cause.
    pub(crate) fn exception(&self, py: Python<'_>, error: &Error) -> PyErr {
        let raised = exception(py, error);
        if error.kind() == ErrorKind::Backend {
            let own = self.each(|registered| registered.own.clone());
            let cause = own.into_iter().filter_map(|(_, own)| own).find_map(|own| own.cause(py, error));
            if let Some(cause) = cause {
                raised.set_cause(py, Some(PyErr::from_value(cause)));
            }
        }
        raised
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let process = *self.process.get_mut();
        // SAFETY: nobody else has the home any more; the lake of the parent process is left alone, as `renew` does.
        unsafe {
            if (*process).forks == forks() {
                drop(Box::from_raw(process));
            }
        }
    }
}
