//! Searching a graph: by a walk, or where few rows may be found by a look at all of those.

use limnion_rabitq::Query;
use limnion_simd::Level;
use limnion_types::{Hit, Job, Result};
use rayon::prelude::*;

use crate::exact::{Exact, hit, key_within, query_factor};
use crate::graph::effort::{Effort, sureness};
use crate::graph::index::GraphIndex;
use crate::graph::params::GraphOptions;
use crate::graph::sieve::Sieve;
use crate::graph::walk::Walk;
use crate::params::{Plan, check_hits, check_share, invalid};
use crate::search::{NO_ROW, PREPARATION_ROWS, Search, scan_originals};
use crate::selection::Selection;
use crate::top::Top;

/// What a search finds unless it is told.
const DEFAULT_RECALL: f32 = 0.95;
/// How sure the bounds of codes are where the effort is given.
const COUNTED_RECALL: f32 = 0.99;
/// With so few rows allowed, their originals are looked at without asking the codes.
const FEW_SELECTED: usize = 1024;
/// So many codes are scanned in the time that a walk takes to follow one vertex.
const STEP_ROWS: usize = 150;

/// What a search did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Vertices whose links it followed.
    pub followed: usize,
    /// Rows whose sign bits were scanned.
    pub scanned: usize,
    /// Rows that were looked at more closely than their sign bits.
    pub refined: usize,
}

/// How a search goes about it.
#[derive(Clone, Copy)]
enum Way {
    /// Looks at the originals of all rows that may be found.
    Exact,
    /// Walks.
    Codes(Effort),
}

impl GraphIndex {
    /// The nearest rows to `query`, best first; ties go to the lower id. On the calling thread.
    ///
    /// Cost: at 100,000 rows of 384 dimensions about 60 µs for a recall of 0.95.
    ///
    /// # Errors
    /// `EmptyIndex`, `DimensionMismatch`, and `InvalidArgument` for a query or options that cannot be used.
    pub fn search(&self, query: &[f32], options: &GraphOptions<'_>) -> Result<Vec<Hit>> {
        Ok(self.search_explained(query, options)?.0)
    }

    /// [`GraphIndex::search`], and what it did.
    ///
    /// # Errors
    /// As [`GraphIndex::search`].
    pub fn search_explained(&self, query: &[f32], options: &GraphOptions<'_>) -> Result<(Vec<Hit>, Walked)> {
        let way = self.plan(options)?;
        self.table.check_query(query)?;
        self.verify_for(self.table.originals.is_some())?;
        Ok(self.run(query, options, way))
    }

    /// [`GraphIndex::search`] for each row of `queries`, parallel.
    ///
    /// # Errors
    /// As [`GraphIndex::search`], and `Cancelled`.
    pub fn search_batch(
        &self,
        queries: &[f32],
        options: &GraphOptions<'_>,
        job: &Job,
    ) -> Result<Vec<Vec<Hit>>> {
        let way = self.plan(options)?;
        let rows = self.table.check_queries(queries)?;
        self.verify_for(self.table.originals.is_some())?;
        let queries: Vec<&[f32]> = rows.iter().collect();
        queries
            .par_iter()
            .map(|query| {
                job.check()?;
                let (hits, _) = self.run(query, options, way);
                job.advance(1);
                Ok(hits)
            })
            .collect()
    }

    fn plan(&self, options: &GraphOptions<'_>) -> Result<Way> {
        if options.ef == Some(0) {
            return Err(invalid("ef must be at least 1, got 0".to_owned()));
        }
        if options.ef.is_some() && options.recall.is_some() {
            return Err(invalid("recall and ef are two ways to say how far to look".to_owned())
                .suggest("give one of them"));
        }
        check_hits(options.k, options.radius)?;
        let recall = options.recall.unwrap_or(DEFAULT_RECALL);
        check_share(recall, &self.params.flat())?;
        let few = match options.selection {
            Some(selection) => selection.len() <= FEW_SELECTED.max(options.k.saturating_mul(4)),
            None => self.len() <= PREPARATION_ROWS,
        };
        if recall == 1.0 || few && self.table.originals.is_some() {
            return Ok(Way::Exact);
        }
        Ok(Way::Codes(match options.ef {
            Some(ef) => Effort { pool: (ef as usize).max(options.k), sureness: sureness(COUNTED_RECALL) },
            None => self.efforts.of(recall, options.k),
        }))
    }

    /// Runs one search whose query and options are in order.
    fn run(&self, query: &[f32], options: &GraphOptions<'_>, way: Way) -> (Vec<Hit>, Walked) {
        let effort = match way {
            Way::Exact => return self.measure(query, options),
            Way::Codes(effort) => effort,
        };
        let metric = self.metric();
        let level = Level::current();
        let coded = Query::new(self.records.quantizer(), level, query, query_factor(metric, level, query));
        let exact = Exact::new(&self.table, query);
        let recall =
            options.recall.unwrap_or(if options.ef.is_some() { COUNTED_RECALL } else { DEFAULT_RECALL });
        // What a scan rules out, or what lies just within a radius, is not met again as it is on a walk.
        let scans = effort.pool.saturating_mul(STEP_ROWS) >= self.places.len();
        let sureness = if scans || options.selection.is_some() || options.radius.is_some() {
            limnion_rabitq::sureness(recall).max(effort.sureness)
        } else {
            effort.sureness
        };
        let walk = Walk::new(self, &coded, exact.as_ref(), sureness);
        let limit = options.radius.map_or(f32::MAX, |radius| key_within(metric, radius));
        let mut sieve = Sieve::new(self, &walk, exact.as_ref(), Top::new(options.k, limit));
        let followed = match options.selection {
            None => self.walk(&walk, effort.pool, &mut sieve),
            Some(selection) => self.walk_selected(&walk, effort.pool, selection, &mut sieve),
        };
        let walked = Walked { followed, scanned: sieve.scanned, refined: sieve.refined };
        let hits = sieve.into_ranked().into_iter().map(|ranked| hit(metric, ranked));
        (hits.filter(|hit| options.radius.is_none_or(|radius| hit.distance <= radius)).collect(), walked)
    }

    /// Measures the rows that may be found against their originals.
    fn measure(&self, query: &[f32], options: &GraphOptions<'_>) -> (Vec<Hit>, Walked) {
        let mut search = Search::new(&self.table, query, options.k, options.radius, Plan::Exact);
        let refined = match options.selection {
            None => {
                scan_originals(&self.table, std::slice::from_mut(&mut search));
                self.len()
            }
            Some(selection) => {
                let rows = selection.rows().map(|slot| self.places.row(slot));
                search.measure(rows.filter(|&row| row != NO_ROW));
                selection.len()
            }
        };
        (search.finish(), Walked { refined, ..Walked::default() })
    }

    /// Walks, or looks at all vertices where that is no more work; returns how many were followed.
    fn walk<'a>(&'a self, walk: &Walk<'a>, pool: usize, sieve: &mut Sieve<'_>) -> usize {
        // Vertices without rows take up places of the pool.
        let pool = pool.saturating_add(pool.saturating_mul(self.places.dead()) / self.len().max(1));
        if pool.saturating_mul(STEP_ROWS) >= self.places.len() {
            sieve.scan(0..self.places.len() as u32);
            return 0;
        }
        let followed = walk.run(pool, None, |found, steps| {
            sieve.scanned += steps.scanned;
            sieve.refined += steps.refined;
            sieve.take(found);
            steps.followed
        });
        if !sieve.is_full() && !sieve.is_bounded() {
            sieve.forget();
            sieve.scan(0..self.places.len() as u32);
        }
        followed
    }

    /// Walks with a pool that holds as many of the selected vertices as a search for all would hold, unless these are so few
    /// that to look at each is less work, or lie so that the walk comes across too few of them.
    fn walk_selected<'a>(
        &'a self,
        walk: &Walk<'a>,
        pool: usize,
        selection: &Selection,
        sieve: &mut Sieve<'_>,
    ) -> usize {
        let wanted = pool.saturating_mul(self.places.len()) / selection.len().max(1);
        let mut followed = 0;
        if wanted.saturating_mul(STEP_ROWS) < selection.len() {
            let is_enough = walk.run(wanted, None, |found, steps| {
                sieve.scanned += steps.scanned;
                sieve.refined += steps.refined;
                followed = steps.followed;
                let selected: Vec<_> =
                    found.iter().filter(|found| selection.contains(found.slot())).copied().collect();
                let is_enough = selected.len() >= (pool - pool / 3).max(sieve.wanted());
                if is_enough {
                    sieve.take(&selected);
                }
                is_enough
            });
            if is_enough {
                return followed;
            }
        }
        sieve.scan(selection.rows());
        followed
    }
}
