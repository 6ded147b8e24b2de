//! Vectors and text together: the rows that are near a vector, and those whose text fits a query, in one order.

use std::collections::{HashMap, HashSet};

use limnion_types::{Error, ErrorKind, Hit, Job, Result};

use crate::backend::{Backend, Id, Ids};
use crate::entry::{Body, Options};
use crate::lake::{Lake, LakeHit, Search};
use crate::names;
use crate::slot::Target;

/// What ranks begin with: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
/// learning methods", SIGIR 2009.
const RANK: f64 = 60.0;
/// Of each half so many times k are looked at, and so many at least: a row that both halves have further down may still
/// come before one that only one of them has.
const DEPTH: usize = 4;
const LEAST: usize = 60;

/// How two orders become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fusion {
    /// By ranks: the sum of 1 / (60 + rank) over the halves that found a row. It asks nothing of scores.
    #[default]
    Reciprocal,
    /// By scores: of the rows that either half found, the scores of each half are stretched to [0, 1] and added. A row that
    /// the text did not find has there what the worst one has, or 0 if that is less.
    Weighted,
}

/// What is searched for beside a vector, and how the two are weighed.
#[derive(Debug, Clone, PartialEq)]
pub struct Hybrid {
    /// The query for the text.
    pub text: String,
    /// How the two orders become one.
    pub fusion: Fusion,
    /// How much the vector counts, from 0 to 1; the text counts for the rest.
    pub weight: f32,
}

impl Hybrid {
    /// A query whose halves count the same, by ranks.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), fusion: Fusion::default(), weight: 0.5 }
    }

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.weight) {
            let message = format!("weight must be from 0 to 1, got {}", self.weight);
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .suggest("0 is text alone, 1 is vectors alone, 0.5 is as much of both"));
        }
        if self.text.trim().is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "text must not be empty")
                .suggest("search_one searches by the vector alone"));
        }
        Ok(())
    }
}

/// A row that one half has found, or both.
struct Candidate {
    hit: Hit,
    /// Its place among those that are nearest, from 1 on.
    near: Option<usize>,
    /// Its place among those whose text fits best, and its score there.
    told: Option<(usize, f32)>,
}

impl Lake {
    /// The best rows of a collection by vector and text together; ties go to the lower id.
    ///
    /// A hit's `score` is the fused one: with [`Fusion::Reciprocal`] 2·weight / (60 + rank among the nearest)
    /// \+ 2·(1 − weight) / (60 + rank by text), which at 0.5 is the rule as published; with [`Fusion::Weighted`] a number
    /// in [0, 1]. Its `distance` is that of its vector, whichever half found it.
    ///
    /// What is found are rows of the index, as in any search: a text that was written after the generation that the index
    /// is of, under an id that is new, is not among them. With [`crate::Consistency::Fresh`] the next search finds it.
    ///
    /// Of each half the best 4·k are looked at, 60 at least. Cost: that of a search for as many, and of the backend's text search.
    ///
    /// # Errors
    /// As [`Lake::search`]; `InvalidArgument` where the backend has no text, for a weight beyond [0, 1] and an empty text.
    pub fn search_hybrid(
        &self,
        target: &Target,
        query: &[f32],
        hybrid: &Hybrid,
        search: &Search,
        job: &Job,
    ) -> Result<Vec<LakeHit>> {
        hybrid.check()?;
        let k = search.options.k;
        let backend = self.backend(&target.backend)?;
        let (ready, among) = self.ready_for(target, search, job)?;
        let depth = if k == 0 { 0 } else { k.saturating_mul(DEPTH).max(LEAST) };
        let options = Options { k: depth, ..search.options };
        let (generation, near) = {
            let body = ready.entry().read();
            (body.origin.generation.clone(), body.search(query, &options, among.as_ref())?)
        };
        let asking = Asking { backend: &*backend, target, text: &hybrid.text, depth };
        let told = asking.ask(among.as_ref(), |id| ready.entry().read().has(id), job)?;
        let body = ready.entry().read();
        // Both halves are of one state of the index.
        let near = match body.origin.generation == generation {
            true => near,
            false => body.search(query, &options, among.as_ref())?,
        };
        let found = candidates(&body, query, &options, near, told)?;
        drop(body);
        let mut fused: Vec<(f64, Id, f32)> = match hybrid.fusion {
            Fusion::Reciprocal => reciprocal(found, f64::from(hybrid.weight)),
            Fusion::Weighted => weighted(found, f64::from(hybrid.weight)),
        };
        fused.sort_by(|(a, x, _), (b, y, _)| b.total_cmp(a).then_with(|| x.cmp(y)));
        fused.truncate(k);
        Ok(fused
            .into_iter()
            .map(|(score, id, distance)| LakeHit {
                backend: target.backend.clone(),
                collection: target.collection.clone(),
                id,
                score: score as f32,
                distance,
            })
            .collect())
    }
}

/// The question to the backend's text.
struct Asking<'a> {
    backend: &'a dyn Backend,
    target: &'a Target,
    text: &'a str,
    depth: usize,
}

impl Asking<'_> {
    /// The best rows by text that may be found, best first, each once.
    fn ask(
        &self,
        among: Option<&Ids>,
        is_known: impl Fn(&Id) -> Result<bool>,
        job: &Job,
    ) -> Result<Vec<(Id, f32)>> {
        let allowed = among.map(set_of);
        let mut wanted = self.depth;
        loop {
            job.check()?;
            let found = self.backend.text_search(&self.target.collection, self.text, wanted)?;
            let mut found = found.ok_or_else(|| self.without_text())?;
            if let Some((id, score)) = found.iter().find(|(_, score)| !score.is_finite()) {
                return Err(self.failed(format_args!("gave {id} a score of {score}")));
            }
            found.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
            let exhausted = found.len() < wanted;
            let mut seen = HashSet::with_capacity(found.len());
            let mut rows = Vec::with_capacity(self.depth.min(found.len()));
            for (id, score) in found {
                let may_be = allowed.as_ref().is_none_or(|allowed| allowed.contains(&id));
                let known = is_known(&id).map_err(|error| self.failed(error.message()))?;
                if may_be && known && seen.insert(id.clone()) {
                    rows.push((id, score));
                }
            }
            if exhausted || rows.len() >= self.depth {
                rows.truncate(self.depth);
                return Ok(rows);
            }
            // Some must not be found, or have no vector: look further down.
            wanted = wanted.saturating_mul(4);
        }
    }

    fn failed(&self, what: impl std::fmt::Display) -> Error {
        names::failed(self.backend.name(), format_args!("text_search({:?}): {what}", self.target.collection))
    }

    fn without_text(&self) -> Error {
        let message = format!("backend {:?} has no text to search", self.backend.name());
        Error::new(ErrorKind::InvalidArgument, message).suggest(
            "search by the vector alone with search_one, keep the collection in a database (StoreBackend), \
             or give the backend a method text_search(collection, query, k)",
        )
    }
}

fn set_of(ids: &Ids) -> HashSet<Id> {
    match ids {
        Ids::Numbers(ids) => ids.iter().map(|&id| Id::Number(id)).collect(),
        Ids::Names(ids) => ids.iter().map(|id| Id::Name(id.clone())).collect(),
    }
}

/// What either half found, each row with the distance of its vector.
fn candidates(
    body: &Body,
    query: &[f32],
    options: &Options,
    near: Vec<Hit>,
    told: Vec<(Id, f32)>,
) -> Result<Vec<(Id, Candidate)>> {
    let mut found: HashMap<Id, Candidate> = HashMap::new();
    for (rank, (id, hit)) in (1..).zip(body.label(near)) {
        found.insert(id, Candidate { hit, near: Some(rank), told: None });
    }
    let far: Vec<Id> = told.iter().map(|(id, _)| id).filter(|id| !found.contains_key(id)).cloned().collect();
    let numbers = far.iter().map(|id| match id {
        Id::Number(number) => Some(*number),
        Id::Name(_) => None,
    });
    let far = match numbers.collect::<Option<Vec<u64>>>() {
        Some(numbers) => Ids::Numbers(numbers),
        None => Ids::Names(
            far.into_iter()
                .filter_map(|id| match id {
                    Id::Name(name) => Some(name),
                    Id::Number(_) => None,
                })
                .collect(),
        ),
    };
    if !far.is_empty() {
        let measured = body.search(query, &Options { k: far.len(), ..*options }, Some(&far))?;
        for (id, hit) in body.label(measured) {
            found.insert(id, Candidate { hit, near: None, told: None });
        }
    }
    for (rank, (id, score)) in (1..).zip(told) {
        // One that is gone since has no place any more.
        if let Some(candidate) = found.get_mut(&id) {
            candidate.told = Some((rank, score));
        }
    }
    Ok(found.into_iter().collect())
}

fn reciprocal(found: Vec<(Id, Candidate)>, weight: f64) -> Vec<(f64, Id, f32)> {
    let part = |share: f64, rank: usize| 2.0 * share / (RANK + rank as f64);
    found
        .into_iter()
        .map(|(id, Candidate { hit, near, told })| {
            let near = near.map_or(0.0, |rank| part(weight, rank));
            let told = told.map_or(0.0, |(rank, _)| part(1.0 - weight, rank));
            (near + told, id, hit.distance)
        })
        .collect()
}

fn weighted(found: Vec<(Id, Candidate)>, weight: f64) -> Vec<(f64, Id, f32)> {
    let near = Stretch::over(found.iter().map(|(_, found)| found.hit.score));
    let worst =
        found.iter().filter_map(|(_, found)| found.told).fold(0.0, |worst: f32, (_, score)| worst.min(score));
    let told_of = |found: &Candidate| found.told.map_or(worst, |(_, score)| score);
    let told = Stretch::over(found.iter().map(|(_, found)| told_of(found)));
    found
        .into_iter()
        .map(|(id, found)| {
            let score = weight * near.of(found.hit.score) + (1.0 - weight) * told.of(told_of(&found));
            (score, id, found.hit.distance)
        })
        .collect()
}

/// From scores of any size to [0, 1].
struct Stretch {
    lowest: f64,
    highest: f64,
}

impl Stretch {
    fn over(scores: impl Iterator<Item = f32>) -> Self {
        let (lowest, highest) = scores
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(lowest, highest), score| {
                (lowest.min(f64::from(score)), highest.max(f64::from(score)))
            });
        Self { lowest, highest }
    }

    /// Where all are the same there is no better and worse: all have 0.
    fn of(&self, score: f32) -> f64 {
        let span = self.highest - self.lowest;
        if span > 0.0 { (f64::from(score) - self.lowest) / span } else { 0.0 }
    }
}
