//! Clustering: k-means in two levels, the same on any number of threads.
//!
//! A sample is parted into about √k groups, each group into its share of the k clusters; then all rows look for the
//! nearest centre among those of their nearest groups, and the centres move to the means of their rows once more. Sums
//! run over the rows of one cluster in their order, so no number of threads changes a bit.

use limnion_rabitq::SplitMix64;
use limnion_simd::{Level, dot_f32, dot_f32_rows};
use limnion_types::{Job, Result};
use rayon::prelude::*;

/// Rows a cluster that training looks at.
const SAMPLE_ROWS: usize = 96;
/// Rows a group that the first level is trained on.
const GROUP_SAMPLE_ROWS: usize = 256;
const ROUNDS: usize = 8;
/// Groups in whose clusters a row looks for its own.
const NEAREST_GROUPS: usize = 6;
/// Rows that one task assigns.
const TASK_ROWS: usize = 1024;
/// Tasks between two words on how far it is.
const ROUND_TASKS: usize = 64;

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
}

/// Centres, one after another, with half their squared lengths.
#[derive(Debug, Clone)]
pub(crate) struct Centres {
    dim: usize,
    values: Vec<f32>,
    halves: Vec<f32>,
}

impl Centres {
    fn new(values: Vec<f32>, dim: usize) -> Self {
        let level = Level::current();
        let halves = values.chunks_exact(dim).map(|centre| 0.5 * dot_f32(level, centre, centre)).collect();
        Self { dim, values, halves }
    }

    pub(crate) fn len(&self) -> usize {
        self.halves.len()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }

    fn set(&mut self, at: usize, centre: &[f32]) {
        if let Some(place) = self.values.get_mut(at * self.dim..(at + 1) * self.dim) {
            place.copy_from_slice(centre);
        }
        if let Some(half) = self.halves.get_mut(at) {
            *half = 0.5 * dot_f32(Level::current(), centre, centre);
        }
    }

    fn push(&mut self, centre: &[f32]) {
        self.values.extend_from_slice(centre);
        self.halves.push(0.5 * dot_f32(Level::current(), centre, centre));
    }

    /// For each centre from `first` on, how much farther it is than none: half the difference of the squared distances.
    fn costs(&self, level: Level, (vector, factor): (&[f32], f32), first: usize, costs: &mut [f32]) {
        let (from, to) = (first * self.dim, (first + costs.len()) * self.dim);
        dot_f32_rows(level, vector, self.values.get(from..to).unwrap_or_default(), costs);
        let halves = self.halves.get(first..).unwrap_or_default();
        for (cost, half) in costs.iter_mut().zip(halves) {
            *cost = half - factor * *cost;
        }
    }

    /// The nearest centre from `first` on, with its cost.
    fn nearest(&self, level: Level, point: (&[f32], f32), first: usize, costs: &mut [f32]) -> (u32, f32) {
        self.costs(level, point, first, costs);
        let least = costs.iter().fold(f32::INFINITY, |least, &cost| least.min(cost));
        let at = costs.iter().position(|&cost| cost <= least).unwrap_or(0);
        ((first + at) as u32, least)
    }
}

/// What the rows were parted into.
pub(crate) struct Clusters {
    pub(crate) centres: Centres,
    /// The cluster of each row.
    pub(crate) nearest: Vec<u32>,
}

/// Parts `points` into `count` clusters; somewhat more where some would have more than `most` rows, and fewer where there
/// are not so many different rows.
///
/// # Errors
/// `Cancelled`.
pub(crate) fn cluster(
    points: Points<'_>,
    count: usize,
    most: usize,
    seed: u64,
    job: &Job,
) -> Result<Clusters> {
    let count = count.clamp(1, points.len().max(1));
    let mut random = SplitMix64::new(seed);
    let sample = pick(points.len(), count * SAMPLE_ROWS, &mut random);
    let tree = Tree::train(points, &sample, count, &mut random, job)?;
    let nearest = tree.assign(points, &sample, job)?;
    let tree = tree.moved(points, &sample, &nearest);
    let all: Vec<u32> = (0..points.len() as u32).collect();
    let mut nearest = Vec::with_capacity(all.len());
    for piece in all.chunks(ROUND_TASKS * TASK_ROWS) {
        nearest.extend(tree.assign(points, piece, job)?);
        job.advance(piece.len() as u64);
    }
    let mut centres = tree.centres;
    split_large(points, &mut centres, &mut nearest, most, seed);
    Ok(Clusters { centres, nearest })
}

/// Two clusters of some rows: two centres and which rows go to the second; `None` where the rows are all alike.
pub(crate) fn halve(points: Points<'_>, rows: &[u32], seed: u64) -> Option<([Vec<f32>; 2], Vec<bool>)> {
    let centres = lloyd(points, rows, 2, &mut SplitMix64::new(seed));
    let second: Vec<bool> = assign(points, rows, &centres).into_iter().map(|nearest| nearest == 1).collect();
    let count = second.iter().filter(|&&second| second).count();
    if count == 0 || count == rows.len() {
        return None;
    }
    let means = [false, true].map(|half| {
        let rows: Vec<u32> =
            rows.iter().zip(&second).filter(|(_, s)| **s == half).map(|(&row, _)| row).collect();
        mean(points, &rows)
    });
    Some((means, second))
}

/// Groups of centres: the centres of a group lie one after another.
struct Tree {
    groups: Centres,
    /// Where each group's centres begin, and the end.
    starts: Vec<usize>,
    centres: Centres,
}

impl Tree {
    fn train(
        points: Points<'_>,
        sample: &[u32],
        count: usize,
        random: &mut SplitMix64,
        job: &Job,
    ) -> Result<Self> {
        let group_count = ((count as f64).sqrt().round() as usize).clamp(1, count);
        let few: Vec<u32> = pick(sample.len(), group_count * GROUP_SAMPLE_ROWS, random)
            .into_iter()
            .filter_map(|at| sample.get(at as usize).copied())
            .collect();
        let groups = lloyd(points, &few, group_count, random);
        job.check()?;
        let members = members(sample, &assign(points, sample, &groups), groups.len());
        let shares = shares(&members, count);
        let seeds: Vec<u64> = members.iter().map(|_| random.next_u64()).collect();
        let parts: Vec<Vec<f32>> = members
            .par_iter()
            .zip(shares)
            .zip(seeds)
            .map(|((rows, share), seed)| {
                job.check()?;
                Ok(lloyd(points, rows, share, &mut SplitMix64::new(seed)).values)
            })
            .collect::<Result<_>>()?;
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts.last().copied().unwrap_or(0) + part.len() / points.dim);
        }
        let centres = Centres::new(parts.concat(), points.dim);
        Ok(Self { groups, starts, centres })
    }

    fn assign(&self, points: Points<'_>, rows: &[u32], job: &Job) -> Result<Vec<u32>> {
        let level = Level::current();
        let largest = self.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let parts: Vec<Vec<u32>> = rows
            .par_chunks(TASK_ROWS)
            .map(|rows| {
                job.check()?;
                let (mut far, mut costs) = (vec![0.0; self.groups.len()], vec![0.0; largest]);
                let mut order: Vec<u32> = Vec::new();
                let nearest = rows.iter().map(|&row| {
                    let point = points.row(row);
                    self.groups.costs(level, point, 0, &mut far);
                    let cost = |group: u32| far.get(group as usize).copied().unwrap_or(f32::MAX);
                    order.clear();
                    order.extend(0..far.len() as u32);
                    if order.len() > NEAREST_GROUPS {
                        order.select_nth_unstable_by(NEAREST_GROUPS - 1, |&a, &b| {
                            cost(a).total_cmp(&cost(b)).then(a.cmp(&b))
                        });
                        order.truncate(NEAREST_GROUPS);
                    }
                    let best = order.iter().filter_map(|&group| {
                        let bounds = self.starts.get(group as usize..group as usize + 2)?;
                        let costs = costs.get_mut(..bounds[1] - bounds[0]).filter(|c| !c.is_empty())?;
                        Some(self.centres.nearest(level, point, bounds[0], costs))
                    });
                    best.min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0))).map_or(0, |best| best.0)
                });
                Ok(nearest.collect())
            })
            .collect::<Result<_>>()?;
        Ok(parts.concat())
    }

    /// The tree with each centre at the mean of its rows, and each group at the mean of its centres.
    fn moved(mut self, points: Points<'_>, rows: &[u32], nearest: &[u32]) -> Self {
        let members = members(rows, nearest, self.centres.len());
        move_centres(points, &mut self.centres, &members);
        let centres: Vec<u32> = (0..self.centres.len() as u32).collect();
        let of = Points { values: &self.centres.values, dim: points.dim, factors: None };
        for (group, bounds) in self.starts.windows(2).enumerate() {
            if let Some(centres) = centres.get(bounds[0]..bounds[1]).filter(|centres| !centres.is_empty()) {
                self.groups.set(group, &mean(of, centres));
            }
        }
        self
    }
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

/// Lloyd's algorithm from centres picked at random. Every centre ends with at least one row, where so many differ.
fn lloyd(points: Points<'_>, rows: &[u32], count: usize, random: &mut SplitMix64) -> Centres {
    let count = count.min(rows.len());
    let start = pick(rows.len(), count, random);
    let values = start.iter().filter_map(|&at| rows.get(at as usize)).flat_map(|&row| {
        let (vector, factor) = points.row(row);
        vector.iter().map(move |x| x * factor)
    });
    let mut centres = Centres::new(values.collect(), points.dim);
    if count < 2 {
        if count == 1 {
            centres.set(0, &mean(points, rows));
        }
        return centres;
    }
    for _ in 0..ROUNDS {
        let nearest = assign(points, rows, &centres);
        let mut members = members(rows, &nearest, count);
        refill(&mut members);
        move_centres(points, &mut centres, &members);
    }
    centres
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

/// The nearest of all centres to each row.
fn assign(points: Points<'_>, rows: &[u32], centres: &Centres) -> Vec<u32> {
    let level = Level::current();
    let parts: Vec<Vec<u32>> = rows
        .par_chunks(TASK_ROWS)
        .map(|rows| {
            let mut costs = vec![0.0; centres.len()];
            rows.iter().map(|&row| centres.nearest(level, points.row(row), 0, &mut costs).0).collect()
        })
        .collect();
    parts.concat()
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

/// Moves each centre that has rows to their mean.
fn move_centres(points: Points<'_>, centres: &mut Centres, members: &[Vec<u32>]) {
    let means: Vec<Vec<f32>> = members
        .par_iter()
        .map(|rows| if rows.is_empty() { Vec::new() } else { mean(points, rows) })
        .collect();
    for (at, mean) in means.iter().enumerate().filter(|(_, mean)| !mean.is_empty()) {
        centres.set(at, mean);
    }
}

fn mean(points: Points<'_>, rows: &[u32]) -> Vec<f32> {
    let mut sums = vec![0.0_f32; points.dim];
    for &row in rows {
        let (vector, factor) = points.row(row);
        sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x * factor);
    }
    let share = 1.0 / rows.len().max(1) as f32;
    sums.iter_mut().for_each(|sum| *sum *= share);
    sums
}

/// Halves clusters of more than `most` rows until there is none that can be halved.
fn split_large(points: Points<'_>, centres: &mut Centres, nearest: &mut [u32], most: usize, seed: u64) {
    let all: Vec<u32> = (0..points.len() as u32).collect();
    let mut large: Vec<(u32, Vec<u32>)> =
        (0..).zip(members(&all, nearest, centres.len())).filter(|(_, rows)| rows.len() > most).collect();
    while let Some((cluster, rows)) = large.pop() {
        let Some((means, second)) = halve(points, &rows, seed) else { continue };
        let new = centres.len() as u32;
        let [first_mean, second_mean] = means;
        centres.set(cluster as usize, &first_mean);
        centres.push(&second_mean);
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for (row, second) in rows.into_iter().zip(second) {
            if second {
                go.push(row);
                if let Some(place) = nearest.get_mut(row as usize) {
                    *place = new;
                }
            } else {
                stay.push(row);
            }
        }
        large.extend([(cluster, stay), (new, go)].into_iter().filter(|(_, rows)| rows.len() > most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limnion_testkit::Random;

    fn clusters(values: &[f32], dim: usize, count: usize, most: usize) -> Clusters {
        let points = Points { values, dim, factors: None };
        cluster(points, count, most, 7, &Job::new()).unwrap()
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
            assert!(other.nearest == one.nearest && other.centres.values == one.centres.values);
        }
    }

    #[test]
    fn rows_are_near_their_centres_and_no_cluster_is_too_large() {
        let values = Random::new(2).clustered(4000, 16, 30);
        let Clusters { centres, nearest } = clusters(&values, 16, 60, 200);
        let mut sizes = vec![0; centres.len()];
        let square = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
        let mut total = 0.0;
        for (row, &cluster) in values.chunks_exact(16).zip(&nearest) {
            sizes[cluster as usize] += 1;
            total += square(row, centres.iter().nth(cluster as usize).unwrap());
        }
        assert!(sizes.iter().all(|&size| size <= 200), "{sizes:?}");
        // The noise round each of the thirty points has a variance of 0.49 a dimension.
        assert!(total / 4000.0 < 16.0 * 0.49 * 1.1, "{}", total / 4000.0);
    }

    #[test]
    fn rows_that_are_all_alike_or_few_make_few_clusters() {
        assert_eq!(clusters(&[1.0; 8 * 500], 8, 20, 100).nearest.len(), 500);
        assert_eq!(clusters(&[1.0, 2.0, 3.0], 1, 20, 100).centres.len(), 3);
        assert_eq!(clusters(&[], 4, 20, 100).nearest.len(), 0);
    }
}
