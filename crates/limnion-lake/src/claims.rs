//! Which model a namespace of a store is embedded with, so that vectors of two models do not meet in one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limnion_store::Store;
use limnion_types::{Error, ErrorKind, Job, Result};

/// The field of a record's metadata that names the model of its vector.
pub const MODEL_FIELD: &str = "embedding_model";

/// What the vectors of a namespace are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// What it is called, where anybody has said so.
    pub name: Option<Arc<str>>,
    /// Numbers a vector.
    pub dim: usize,
}

/// Who is about to write vectors, and of what.
///
/// A claim holds until it is dropped, when what it was made for is written or has failed. As long as it does, others can
/// claim the same model only. The store is asked when a namespace is first claimed, and when somebody claims another model.
#[derive(Default)]
pub struct Claims {
    known: Mutex<HashMap<Box<str>, Known>>,
    /// Only one at a time looks at the store.
    looking: Mutex<()>,
}

#[derive(Clone)]
struct Known {
    model: Model,
    claims: usize,
    /// How many there ever were.
    count: u64,
}

/// Vectors of a model are about to be written.
pub struct Claim {
    claims: Arc<Claims>,
    namespace: Box<str>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(known) = held(&self.claims.known).get_mut(&self.namespace) {
            known.claims = known.claims.saturating_sub(1);
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    /// A claim, where the namespace is known to be of this model; `None` where the store has to be asked.
    pub fn claim_now(self: &Arc<Self>, namespace: &str, model: &Model) -> Option<Claim> {
        let mut known = held(&self.known);
        let known = known.get_mut(namespace).filter(|known| known.model.fits(model))?;
        known.model.name = known.model.name.take().or_else(|| model.name.clone());
        known.claims += 1;
        known.count += 1;
        Some(Claim { claims: self.clone(), namespace: namespace.into() })
    }

    /// A claim. Blocks: reads the store, and waits for what was handed to its writer before.
    ///
    /// # Errors
    /// `DimensionMismatch` where the namespace has vectors of another model; what the store raises.
    pub fn claim(
        self: &Arc<Self>,
        store: &Store,
        namespace: &str,
        model: &Model,
        job: &Job,
    ) -> Result<Claim> {
        let _looking = held(&self.looking);
        loop {
            if let Some(claim) = self.claim_now(namespace, model) {
                return Ok(claim);
            }
            let before = held(&self.known).get(namespace).cloned();
            if let Some(known) = before.as_ref().filter(|known| known.claims > 0) {
                return Err(known.model.mismatch(namespace, model));
            }
            store.flush()?;
            let found = Model::of(store, namespace, job)?;
            let mut known = held(&self.known);
            let now = known.get(namespace);
            if now.map(|now| now.count) != before.map(|before| before.count) {
                continue; // somebody has claimed what was known, and may have written
            }
            let count = now.map_or(0, |now| now.count);
            let fits = found.as_ref().is_none_or(|found| found.fits(model));
            let known_now = found.clone().unwrap_or_else(|| model.clone());
            known.insert(namespace.into(), Known { model: known_now, claims: 0, count });
            drop(known);
            if let (false, Some(found)) = (fits, found) {
                return Err(found.mismatch(namespace, model));
            }
        }
    }
}

impl Model {
    /// The model of the vectors without a name in a namespace; `None` where there are none.
    fn of(store: &Store, namespace: &str, job: &Job) -> Result<Option<Self>> {
        let Some(record) = store.column(namespace, "").any(job)? else { return Ok(None) };
        let shapes = record.payload.vector_shapes();
        let dim = shapes.iter().find(|(name, _)| name.is_empty()).map_or(0, |(_, bytes)| *bytes as usize / 4);
        let metadata = record.payload.metadata().map(serde_json::from_str::<serde_json::Value>);
        let name = metadata.and_then(|metadata| metadata.ok()?.get(MODEL_FIELD)?.as_str().map(Arc::from));
        Ok(Some(Self { name, dim }))
    }

    /// Whether vectors of both can be compared, as far as is known.
    fn fits(&self, other: &Self) -> bool {
        let named_alike = match (&self.name, &other.name) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.dim == other.dim && named_alike
    }

    fn mismatch(&self, namespace: &str, came: &Self) -> Error {
        let told = |model: &Self| match &model.name {
            Some(name) => format!("{} dimensions of the model {name:?}", model.dim),
            None => format!("{} dimensions", model.dim),
        };
        let message = format!(
            "embeddings in the namespace {namespace:?} must all be of one model: it has {}, got {}",
            told(self),
            told(came)
        );
        Error::new(ErrorKind::DimensionMismatch, message).suggest(
            "embed with that model, or into another namespace; or delete the records of the old model first",
        )
    }
}
