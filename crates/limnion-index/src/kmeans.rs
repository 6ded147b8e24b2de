//! Clustering: k-means in two levels, the same on any number of threads.
//!
//! A sample is parted into about √k groups, each group into its share of the k clusters; then all rows look for the
//! nearest centre among those of their nearest groups. Distances are measured between rough vectors ([`crate::rough`]),
//! in whole numbers and in tiles of rows and centres; each group has an origin of its own, so that what is rough is only the
//! way from there. Centres are the true means of their rows. Sums run over the rows of one cluster in their order, so no
//! number of threads changes a bit.

use std::ops::Range;

use limnion_rabitq::SplitMix64;
use limnion_simd::{Level, dot_f32, dots_i8};
use limnion_types::Result;
use rayon::prelude::*;

use crate::rough::Rough;
use crate::stage::Stage;

/// Rows a cluster that training looks at.
const SAMPLE_ROWS: usize = 96;
/// Rows a group that the first level is trained on.
const GROUP_SAMPLE_ROWS: usize = 256;
const ROUNDS: usize = 8;
/// Training ends early where no more than one row in so many found another centre.
const SETTLED: usize = 100;
/// Groups in whose clusters a row looks for its own.
const NEAREST_GROUPS: usize = 6;
/// Rows that one task assigns.
const TASK_ROWS: usize = 256;

/// Rows to cluster, each times its factor.
#[derive(Clone, Copy)]
pub(crate) struct Points<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) dim: usize,
    pub(crate) factors: Option<&'a [f32]>,
}

impl<'a> Points<'a> {
    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    pub(crate) fn row(&self, row: u32) -> (&'a [f32], f32) {
        let start = row as usize * self.dim;
        let factor = self.factors.and_then(|factors| factors.get(row as usize)).copied().unwrap_or(1.0);
        (self.values.get(start..start + self.dim).unwrap_or_default(), factor)
    }

    /// Rough copies of the way from `origin` to each of some rows, in place of what is there.
    fn rough(&self, rows: impl Iterator<Item = u32>, origin: &[f32], way: &mut Vec<f32>, out: &mut Rough) {
        out.clear();
        for row in rows {
            let (vector, factor) = self.row(row);
            way.clear();
            way.extend(vector.iter().zip(origin).map(|(x, from)| x * factor - from));
            out.push(way);
        }
    }
}

/// What the rows were parted into.
pub(crate) struct Clusters {
    dim: usize,
    /// The centres, one after another.
    values: Vec<f32>,
    /// The cluster of each row.
    pub(crate) nearest: Vec<u32>,
}

impl Clusters {
    pub(crate) fn count(&self) -> usize {
        self.values.len() / self.dim
    }

    pub(crate) fn centres(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }
}

/// Parts `points` into `count` clusters; somewhat more where some would have more than `most` rows, and fewer where there
/// are not so many different rows. What is done counts for `training` and then for `assigning`, in units of any size.
///
/// # Errors
/// `Cancelled`.
pub(crate) fn cluster(
    points: Points<'_>,
    count: usize,
    most: usize,
    seed: u64,
    training: &Stage<'_>,
    assigning: &Stage<'_>,
) -> Result<Clusters> {
    let count = count.clamp(1, points.len().max(1));
    let mut random = SplitMix64::new(seed);
    let sample = pick(points.len(), count * SAMPLE_ROWS, &mut random);
    let tree = Tree::train(points, &sample, count, &mut random, training)?;
    let all: Vec<u32> = (0..points.len() as u32).collect();
    let assigning = &assigning.in_units(all.len() as u64);
    let nearest = tree.assign(points, &all, assigning)?;
    let mut clusters = Clusters { dim: points.dim, values: tree.centres, nearest };
    clusters.split_large(points, most, seed, assigning)?;
    Ok(clusters)
}

/// Some rows as two clusters.
pub(crate) struct Halves {
    pub(crate) centres: [Vec<f32>; 2],
    /// Which rows go to the second.
    pub(crate) second: Vec<bool>,
}

/// Halves a cluster of some rows; `None` where they are all alike.
pub(crate) fn halve(
    points: Points<'_>,
    rows: &[u32],
    seed: u64,
    stage: &Stage<'_>,
) -> Result<Option<Halves>> {
    let level = Level::current();
    let centres = lloyd(points, rows, 2, &mut SplitMix64::new(seed), stage)?;
    let (first, second) = centres.split_at(points.dim.min(centres.len()));
    let half = 0.5 * (dot_f32(level, second, second) - dot_f32(level, first, first));
    let is_second = |&row: &u32| {
        let (vector, factor) = points.row(row);
        factor * (dot_f32(level, vector, second) - dot_f32(level, vector, first)) > half
    };
    let second: Vec<bool> = rows.iter().map(is_second).collect();
    let count = second.iter().filter(|&&second| second).count();
    if count == 0 || count == rows.len() {
        return Ok(None);
    }
    let centres = [false, true].map(|half| {
        let rows: Vec<u32> =
            rows.iter().zip(&second).filter(|(_, s)| **s == half).map(|(&row, _)| row).collect();
        mean(points, &rows)
    });
    Ok(Some(Halves { centres, second }))
}

/// Groups of centres.
struct Tree {
    origin: Vec<f32>,
    /// The groups' own origins, on the way from that of the tree.
    groups: Rough,
    parts: Vec<Part>,
    /// All centres, those of a group one after another.
    centres: Vec<f32>,
}

/// The centres of one group.
struct Part {
    origin: Vec<f32>,
    /// The number of the first.
    first: u32,
    /// On the way from the origin.
    centres: Rough,
}

impl Tree {
    fn train(
        points: Points<'_>,
        sample: &[u32],
        count: usize,
        random: &mut SplitMix64,
        stage: &Stage<'_>,
    ) -> Result<Self> {
        let group_count = ((count as f64).sqrt().round() as usize).clamp(1, count);
        let few: Vec<u32> = pick(sample.len(), group_count * GROUP_SAMPLE_ROWS, random)
            .into_iter()
            .filter_map(|at| sample.get(at as usize).copied())
            .collect();
        let stage = &stage.in_units((few.len() * ROUNDS + sample.len() * (ROUNDS + 2)) as u64);
        let groups = lloyd(points, &few, group_count, random, stage)?;
        let groups = Self::of(points, &[groups], &mean(points, &few));
        let members = members(sample, &groups.assign(points, sample, stage)?, groups.count());
        let shares = shares(&members, count);
        let seeds: Vec<u64> = members.iter().map(|_| random.next_u64()).collect();
        let parts: Vec<Vec<f32>> = members
            .par_iter()
            .zip(shares)
            .zip(seeds)
            .map(|((rows, share), seed)| lloyd(points, rows, share, &mut SplitMix64::new(seed), stage))
            .collect::<Result<_>>()?;
        let tree = Self::of(points, &parts, &groups.origin);
        // Once more by all groups: rows at the edge of one may be nearer to a centre of another.
        let nearest = tree.assign(points, sample, stage)?;
        tree.moved(points, sample, &nearest, stage)
    }

    /// A tree over the centres of some groups.
    fn of(points: Points<'_>, groups: &[Vec<f32>], origin: &[f32]) -> Self {
        let dim = points.dim;
        let (mut rough, mut parts, mut first) = (Rough::new(dim), Vec::new(), 0);
        let mut way = Vec::new();
        for centres in groups {
            let of = Points { values: centres, dim, factors: None };
            let all: Vec<u32> = (0..of.len() as u32).collect();
            let mut part = Part { origin: mean(of, &all), first, centres: Rough::new(dim) };
            of.rough(all.iter().copied(), &part.origin, &mut way, &mut part.centres);
            first += all.len() as u32;
            way.clear();
            way.extend(part.origin.iter().zip(origin).map(|(x, from)| x - from));
            rough.push(&way);
            parts.push(part);
        }
        Self { origin: origin.to_vec(), groups: rough, parts, centres: groups.concat() }
    }

    fn count(&self) -> usize {
        self.centres.len() / self.origin.len().max(1)
    }

    /// The nearest centre to each row, as far as its nearest groups go.
    fn assign(&self, points: Points<'_>, rows: &[u32], stage: &Stage<'_>) -> Result<Vec<u32>> {
        let tasks = rows.par_chunks(TASK_ROWS).map_init(
            || Work::new(points.dim),
            |work, rows| {
                stage.check()?;
                let nearest = self.assign_few(points, rows, work);
                stage.advance(rows.len() as u64);
                Ok(nearest)
            },
        );
        Ok(tasks.collect::<Result<Vec<_>>>()?.concat())
    }

    fn assign_few(&self, points: Points<'_>, rows: &[u32], work: &mut Work) -> Vec<u32> {
        // Which rows, by their number in the task, look into each group.
        let mut chosen: Vec<Vec<u32>> = vec![Vec::new(); self.parts.len()];
        let all = 0..rows.len() as u32;
        if self.parts.len() <= NEAREST_GROUPS {
            chosen.iter_mut().for_each(|rows| rows.extend(all.clone()));
        } else {
            points.rough(rows.iter().copied(), &self.origin, &mut work.way, &mut work.rough);
            let mut order: Vec<(f32, u32)> = Vec::with_capacity(self.parts.len());
            work.measure(&self.groups);
            for (row, costs) in (0..).zip(work.costs.chunks_exact(self.groups.len())) {
                order.clear();
                order.extend(costs.iter().copied().zip(0..));
                let last = NEAREST_GROUPS - 1;
                order.select_nth_unstable_by(last, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                for (_, group) in order.iter().take(NEAREST_GROUPS) {
                    if let Some(rows) = chosen.get_mut(*group as usize) {
                        rows.push(row);
                    }
                }
            }
        }
        let mut best = vec![(f32::INFINITY, 0); rows.len()];
        for (part, chosen) in self.parts.iter().zip(&chosen) {
            let rows = chosen.iter().filter_map(|&at| rows.get(at as usize).copied());
            points.rough(rows, &part.origin, &mut work.way, &mut work.rough);
            work.measure(&part.centres);
            for (&at, costs) in chosen.iter().zip(work.costs.chunks_exact(part.centres.len().max(1))) {
                let (cost, centre) = least(costs);
                if let Some(best) = best.get_mut(at as usize).filter(|best| cost < best.0) {
                    *best = (cost, part.first + centre);
                }
            }
        }
        best.into_iter().map(|(_, centre)| centre).collect()
    }

    /// The tree with each centre at the mean of its rows.
    fn moved(self, points: Points<'_>, rows: &[u32], nearest: &[u32], stage: &Stage<'_>) -> Result<Self> {
        let members = members(rows, nearest, self.count());
        let old: Vec<&[f32]> = self.centres.chunks_exact(points.dim).collect();
        let new: Vec<Vec<f32>> = members
            .par_iter()
            .zip(old)
            .map(|(rows, old)| {
                stage.check()?;
                Ok(if rows.is_empty() { old.to_vec() } else { mean(points, rows) })
            })
            .collect::<Result<_>>()?;
        let mut rest = new.as_slice();
        let groups: Vec<Vec<f32>> = self
            .parts
            .iter()
            .map(|part| {
                let (mine, others) = rest.split_at(part.centres.len().min(rest.len()));
                rest = others;
                mine.concat()
            })
            .collect();
        Ok(Self::of(points, &groups, &self.origin))
    }
}

/// Memory that one thread assigns rows in.
struct Work {
    way: Vec<f32>,
    rough: Rough,
    dots: Vec<i32>,
    /// The squared distances of each rough row to all centres.
    costs: Vec<f32>,
}

impl Work {
    fn new(dim: usize) -> Self {
        let rough = Rough::with_capacity(dim, TASK_ROWS);
        Self { way: Vec::new(), rough, dots: Vec::new(), costs: Vec::new() }
    }

    /// Measures the rough rows against all centres.
    fn measure(&mut self, centres: &Rough) {
        let Self { rough, dots, costs, .. } = self;
        costs_of(rough, 0..rough.len(), centres, dots, costs);
    }
}

/// The squared distances of some rough rows to all centres, row by row.
pub(crate) fn costs_of(
    rows: &Rough,
    range: Range<usize>,
    centres: &Rough,
    dots: &mut Vec<i32>,
    costs: &mut Vec<f32>,
) {
    let bytes: Vec<&[i8]> = range.clone().map(|row| rows.row(row)).collect();
    dots.clear();
    dots.resize(bytes.len() * centres.len(), 0);
    dots_i8(Level::current(), rows.dim(), &bytes, centres.values(), dots);
    costs.clear();
    for (row, dots) in range.zip(dots.chunks_exact(centres.len().max(1))) {
        let (square, twice) = (rows.square(row), 2.0 * rows.step(row));
        let centres = centres.squares().iter().zip(centres.steps());
        costs.extend(
            dots.iter()
                .zip(centres)
                .map(|(&dot, (of_centre, step))| (square + of_centre) - twice * step * dot as f32),
        );
    }
}

/// The least cost, and whose it is: the first one's, where there are several.
fn least(costs: &[f32]) -> (f32, u32) {
    let least = costs.iter().fold(f32::INFINITY, |least, &cost| if cost < least { cost } else { least });
    (least, costs.iter().position(|&cost| cost <= least).unwrap_or(0) as u32)
}

/// `count` of the numbers below `len`, ascending: one at random of each of as many equal runs.
fn pick(len: usize, count: usize, random: &mut SplitMix64) -> Vec<u32> {
    if count >= len {
        return (0..len as u32).collect();
    }
    let start = |i: usize| (i as u128 * len as u128 / count as u128) as u64;
    (0..count).map(|i| (start(i) + random.next_u64() % (start(i + 1) - start(i)).max(1)) as u32).collect()
}

/// How many of `count` clusters each group gets, by its size; each at least one, and none more than it has rows.
fn shares(members: &[Vec<u32>], count: usize) -> Vec<usize> {
    let total: usize = members.iter().map(Vec::len).sum();
    // Rounding carries over, so that the sum comes out right.
    let (mut seen, mut given) = (0, 0);
    members
        .iter()
        .map(|rows| {
            seen += rows.len();
            let upto = (seen as u128 * count as u128 / total.max(1) as u128) as usize;
            let share = upto.saturating_sub(given).clamp(1.min(rows.len()), rows.len());
            given += share;
            share
        })
        .collect()
}

/// The centres that Lloyd's algorithm finds from rows picked at random, one after another. Each is the mean of at least
/// one row.
fn lloyd(
    points: Points<'_>,
    rows: &[u32],
    count: usize,
    random: &mut SplitMix64,
    stage: &Stage<'_>,
) -> Result<Vec<f32>> {
    stage.check()?;
    let (dim, count) = (points.dim, count.min(rows.len()));
    let start = pick(rows.len(), count, random);
    if count < 2 {
        stage.advance((rows.len() * ROUNDS) as u64);
        return Ok(if count == 0 { Vec::new() } else { mean(points, rows) });
    }
    let origin = mean(points, rows);
    let parts: Vec<Rough> = rows
        .par_chunks(TASK_ROWS)
        .map(|rows| {
            let mut rough = Rough::with_capacity(dim, rows.len());
            points.rough(rows.iter().copied(), &origin, &mut Vec::new(), &mut rough);
            rough
        })
        .collect();
    let rough = Rough::joined(dim, parts);
    let mut centres = Rough::new(dim);
    start.iter().for_each(|&at| centres.push_from(&rough, at as usize));
    let (mut nearest, mut of_each) = (Vec::new(), Vec::new());
    let all: Vec<u32> = (0..rough.len() as u32).collect();
    for round in 0..ROUNDS {
        let found = assign(&rough, &centres, stage)?;
        let changed = found.iter().zip(&nearest).filter(|(new, old)| new != old).count();
        let settled = round > 0 && changed <= rough.len() / SETTLED;
        nearest = found;
        of_each = members(&all, &nearest, count);
        refill(&mut of_each);
        if settled {
            stage.advance((rough.len() * (ROUNDS - 1 - round)) as u64);
            break;
        }
        if round + 1 < ROUNDS {
            let means: Vec<Vec<f32>> = of_each.par_iter().map(|rows| rough_mean(&rough, rows)).collect();
            means.iter().enumerate().for_each(|(at, mean)| centres.set(at, mean));
        }
    }
    let mean = |of: &Vec<u32>| {
        let rows: Vec<u32> = of.iter().filter_map(|&at| rows.get(at as usize).copied()).collect();
        mean(points, &rows)
    };
    Ok(of_each.par_iter().map(mean).collect::<Vec<_>>().concat())
}

/// The nearest of all centres to each rough row.
fn assign(rows: &Rough, centres: &Rough, stage: &Stage<'_>) -> Result<Vec<u32>> {
    let parts = (0..rows.len().div_ceil(TASK_ROWS)).into_par_iter().map(|task| {
        stage.check()?;
        let range = task * TASK_ROWS..rows.len().min((task + 1) * TASK_ROWS);
        let (mut dots, mut costs) = (Vec::new(), Vec::new());
        costs_of(rows, range.clone(), centres, &mut dots, &mut costs);
        stage.advance(range.len() as u64);
        Ok(costs.chunks_exact(centres.len()).map(|costs| least(costs).1).collect())
    });
    Ok(parts.collect::<Result<Vec<Vec<u32>>>>()?.concat())
}

/// Gives each empty cluster the second half of the largest one's rows.
fn refill(members: &mut [Vec<u32>]) {
    for empty in 0..members.len() {
        if members.get(empty).is_some_and(Vec::is_empty) {
            let largest = members.iter_mut().max_by_key(|rows| rows.len());
            let Some(half) = largest.map(|rows| rows.split_off(rows.len().div_ceil(2))) else { return };
            if let Some(place) = members.get_mut(empty) {
                *place = half;
            }
        }
    }
}

/// The rows of each cluster, in their order.
fn members(rows: &[u32], nearest: &[u32], count: usize) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); count];
    for (&row, &cluster) in rows.iter().zip(nearest) {
        if let Some(members) = members.get_mut(cluster as usize) {
            members.push(row);
        }
    }
    members
}

fn mean(points: Points<'_>, rows: &[u32]) -> Vec<f32> {
    let mut sums = vec![0.0_f32; points.dim];
    for &row in rows {
        let (vector, factor) = points.row(row);
        sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x * factor);
    }
    divided(sums, rows.len())
}

fn rough_mean(points: &Rough, rows: &[u32]) -> Vec<f32> {
    let mut sums = vec![0.0_f32; points.dim()];
    for &row in rows {
        let step = points.step(row as usize);
        sums.iter_mut().zip(points.row(row as usize)).for_each(|(sum, &x)| *sum += f32::from(x) * step);
    }
    divided(sums, rows.len())
}

fn divided(mut sums: Vec<f32>, count: usize) -> Vec<f32> {
    let share = 1.0 / count.max(1) as f32;
    sums.iter_mut().for_each(|sum| *sum *= share);
    sums
}

impl Clusters {
    /// Halves clusters of more than `most` rows until there is none that can be halved.
    fn split_large(&mut self, points: Points<'_>, most: usize, seed: u64, stage: &Stage<'_>) -> Result<()> {
        let all: Vec<u32> = (0..points.len() as u32).collect();
        let members = members(&all, &self.nearest, self.count());
        let mut large: Vec<(u32, Vec<u32>)> =
            (0..).zip(members).filter(|(_, rows)| rows.len() > most).collect();
        while let Some((cluster, rows)) = large.pop() {
            let Some(Halves { centres: [first, second], second: goes }) = halve(points, &rows, seed, stage)?
            else {
                continue;
            };
            let (start, new) = (cluster as usize * self.dim, self.count() as u32);
            if let Some(place) = self.values.get_mut(start..start + self.dim) {
                place.copy_from_slice(&first);
            }
            self.values.extend_from_slice(&second);
            let (mut stay, mut go) = (Vec::new(), Vec::new());
            for (row, goes) in rows.into_iter().zip(goes) {
                if goes {
                    go.push(row);
                    if let Some(place) = self.nearest.get_mut(row as usize) {
                        *place = new;
                    }
                } else {
                    stay.push(row);
                }
            }
            large.extend([(cluster, stay), (new, go)].into_iter().filter(|(_, rows)| rows.len() > most));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limnion_testkit::Random;
    use limnion_types::{ErrorKind, Job};

    fn clusters(values: &[f32], dim: usize, count: usize, most: usize) -> Clusters {
        let points = Points { values, dim, factors: None };
        let job = Job::new();
        let clusters = cluster(points, count, most, 7, &Stage::new(&job, 60, 1), &Stage::new(&job, 40, 1));
        assert_eq!(job.done(), if values.is_empty() { 0 } else { 100 });
        clusters.unwrap()
    }

    #[test]
    fn clusters_are_the_same_on_any_number_of_threads() {
        let values = Random::new(1).clustered(6000, 24, 40);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| clusters(&values, 24, 60, 1000))
        };
        let one = run(1);
        for threads in [2, 5] {
            let other = run(threads);
            assert!(other.nearest == one.nearest && other.values == one.values);
        }
    }

    #[test]
    fn rows_are_near_their_centres_and_no_cluster_is_too_large() {
        let values = Random::new(2).clustered(4000, 16, 30);
        let found = clusters(&values, 16, 60, 200);
        let mut sizes = vec![0; found.count()];
        let square = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
        let mut total = 0.0;
        for (row, &cluster) in values.chunks_exact(16).zip(&found.nearest) {
            sizes[cluster as usize] += 1;
            total += square(row, found.centres().nth(cluster as usize).unwrap());
        }
        assert!(sizes.iter().all(|&size| size <= 200), "{sizes:?}");
        // The noise round each of the thirty points has a variance of 0.49 a dimension.
        assert!(total / 4000.0 < 16.0 * 0.49 * 1.1, "{}", total / 4000.0);
    }

    #[test]
    fn tight_clusters_far_from_each_other_are_told_apart_inside() {
        // Within a group of rows everything is a thousand times smaller than the way to the next one.
        let mut random = Random::new(3);
        let (inner, outer) = (random.clustered(4000, 8, 10), random.gaussians(5, 8));
        let values: Vec<f32> = inner
            .chunks_exact(8)
            .enumerate()
            .flat_map(|(row, x)| (0..8).map(|d| x[d] + 1e4 * outer[row % 5 * 8 + d]).collect::<Vec<_>>())
            .collect();
        let found = clusters(&values, 8, 60, 400);
        let mut total = 0.0;
        for (row, &cluster) in values.chunks_exact(8).zip(&found.nearest) {
            let centre = found.centres().nth(cluster as usize).unwrap();
            total += row.iter().zip(centre).map(|(x, c)| (x - c).powi(2)).sum::<f32>();
        }
        let spread = inner.iter().map(|x| x * x).sum::<f32>();
        assert!(total < 0.6 * spread, "{total} of {spread}");
    }

    #[test]
    fn a_job_that_is_cancelled_stops() {
        let values = Random::new(1).clustered(6000, 24, 40);
        let points = Points { values: &values, dim: 24, factors: None };
        let job = Job::new();
        job.cancel();
        let result = cluster(points, 60, 1000, 7, &Stage::new(&job, 60, 1), &Stage::new(&job, 40, 1));
        assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::Cancelled));
    }

    #[test]
    fn rows_that_are_all_alike_or_few_make_few_clusters() {
        assert_eq!(clusters(&[1.0; 8 * 500], 8, 20, 100).nearest.len(), 500);
        assert_eq!(clusters(&[1.0, 2.0, 3.0], 1, 20, 100).count(), 3);
        assert_eq!(clusters(&[], 4, 20, 100).nearest.len(), 0);
    }
}
