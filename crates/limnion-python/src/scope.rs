//! What all searches have in common: what is near to what, how many hits, and among which rows.

use std::borrow::Cow;

use limnion_index::{Exclusion, FlatIndex, GraphIndex, IvfIndex, Selection};
use limnion_types::{Hit, Result};
use pyo3::prelude::*;

use crate::args;
use crate::selection::{Selecting, Where, exclusion};

/// What hits are to be near to.
pub(crate) enum Near {
    /// A vector, or several one after another.
    Vector(Vec<f32>),
    /// The vector of a row, which is not found itself.
    Row(u64),
}

/// What is asked of an index to search from a row of it.
pub(crate) trait Reconstructing {
    fn reconstruct(&self, id: u64) -> Result<Vec<f32>>;
}

impl Reconstructing for FlatIndex {
    fn reconstruct(&self, id: u64) -> Result<Vec<f32>> {
        self.reconstruct(id)
    }
}

impl Reconstructing for IvfIndex {
    fn reconstruct(&self, id: u64) -> Result<Vec<f32>> {
        self.reconstruct(id)
    }
}

impl Reconstructing for GraphIndex {
    fn reconstruct(&self, id: u64) -> Result<Vec<f32>> {
        self.reconstruct(id)
    }
}

impl Near {
    /// The query, or the queries.
    pub(crate) fn vector(&self, index: &impl Reconstructing) -> Result<Cow<'_, [f32]>> {
        match self {
            Self::Vector(vector) => Ok(vector.into()),
            Self::Row(id) => index.reconstruct(*id).map(Cow::from),
        }
    }
}

/// How many hits a search is for, and among which rows.
pub(crate) struct Scope {
    k: usize,
    allowed: Option<Where>,
    exclusion: Exclusion,
    radius: Option<f32>,
}

/// A scope in one index, with what it takes to leave out what is excluded.
pub(crate) struct Within<'a> {
    pub(crate) k: usize,
    pub(crate) selection: Option<&'a Selection>,
    pub(crate) radius: Option<f32>,
}

impl Scope {
    #[inline]
    pub(crate) fn take(
        k: Option<&Bound<'_, PyAny>>,
        allowed: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            k: k.map_or(Ok(10), |k| args::count("k", k))?,
            allowed: allowed.map(Where::take).transpose()?,
            exclusion: exclusion(exclude)?,
            radius: radius.map(|radius| args::number("radius", radius)).transpose()?,
        })
    }

    /// Leaves one row more out.
    pub(crate) fn without(mut self, id: u64) -> Self {
        self.exclusion = Exclusion::new(self.exclusion.ids().iter().copied().chain([id]).collect());
        self
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Runs a search for one query.
    #[inline]
    pub(crate) fn one(
        &self,
        index: &impl Selecting,
        search: impl FnOnce(Within<'_>) -> Result<Vec<Hit>>,
    ) -> Result<Vec<Hit>> {
        self.within(index, search).map(|hits| self.exclusion.narrowed(hits, self.k))
    }

    /// Runs a search for several.
    pub(crate) fn batch(
        &self,
        index: &impl Selecting,
        search: impl FnOnce(Within<'_>) -> Result<Vec<Vec<Hit>>>,
    ) -> Result<Vec<Vec<Hit>>> {
        let batch = self.within(index, search)?;
        Ok(batch.into_iter().map(|hits| self.exclusion.narrowed(hits, self.k)).collect())
    }

    #[inline]
    pub(crate) fn within<R>(
        &self,
        index: &impl Selecting,
        search: impl FnOnce(Within<'_>) -> Result<R>,
    ) -> Result<R> {
        let Self { k, radius, exclusion, .. } = self;
        let short = exclusion.is_short();
        let allowed = self.allowed.as_ref().map(|allowed| allowed.select(index)).transpose()?;
        if short {
            let k = exclusion.widened(*k);
            return search(Within { k, selection: allowed.as_deref(), radius: *radius });
        }
        let left = match allowed {
            None => index.select_all_but(exclusion.ids()),
            Some(allowed) => allowed.without(&index.select_ids(exclusion.ids())),
        };
        search(Within { k: *k, selection: Some(&left), radius: *radius })
    }
}
