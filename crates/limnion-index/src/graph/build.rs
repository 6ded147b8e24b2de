//! Building a graph: edges within leaves of near vectors, then a walk from every vector for better ones.
//!
//! Both steps choose among candidates by the rule of relative neighbourhoods: a candidate that is much nearer to one
//! already chosen than to the vertex is left out, since the walk comes to it by the other. Every step reads what the one
//! before has made and writes anew, so that the result does not depend on the number of threads.

use std::cell::RefCell;

use limnion_types::Result;
use rayon::prelude::*;

use crate::graph::bytes::Bytes;
use crate::graph::links::Links;
use crate::graph::visited::Visited;
use crate::stage::Stage;

/// How much nearer to a chosen one than to the vertex a candidate must be to be left out: the ratio of squared distances.
const DETOUR: f32 = 1.3;
/// Candidates of a vertex within a leaf.
const LEAF_CANDIDATES: usize = 48;
/// The most that are chosen among them.
const LEAF_DEGREE: usize = 12;
/// Vertices that the walk of the second step holds.
const BEAM: usize = 32;
/// The most candidates that are looked at for a vertex.
const CANDIDATES: usize = 96;
/// Vertices between two looks at the job.
const PIECE: usize = 256;

/// A vertex at a squared distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Near {
    pub(crate) distance: f32,
    pub(crate) slot: u32,
}

impl Near {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.slot.cmp(&other.slot))
    }
}

/// The nearest first, each once, and no more than so many.
pub(crate) fn tidy(near: &mut Vec<Near>, most: usize) {
    near.sort_unstable_by(Near::order);
    near.dedup_by_key(|near| near.slot);
    near.truncate(most);
}

/// Chooses links among candidates that [`tidy`] has put in order; `is_apart` says of a candidate whether it is far enough
/// from all that were chosen before it.
fn choose_where(
    candidates: &[Near],
    degree: usize,
    mut is_apart: impl FnMut(&Near, &[u32]) -> bool,
) -> Vec<Near> {
    let mut chosen: Vec<Near> = Vec::with_capacity(degree);
    let mut slots: Vec<u32> = Vec::with_capacity(degree);
    for candidate in candidates {
        if chosen.len() == degree {
            break;
        }
        if is_apart(candidate, &slots) {
            chosen.push(*candidate);
            slots.push(candidate.slot);
        }
    }
    chosen
}

/// Chooses links among candidates that [`tidy`] has put in order.
pub(crate) fn choose(bytes: &Bytes, candidates: &[Near], degree: usize) -> Vec<Near> {
    choose_where(candidates, degree, |candidate, chosen| {
        let mut is_apart = true;
        bytes.distances(candidate.slot, chosen, |_, distance| {
            is_apart = DETOUR * distance > candidate.distance;
            is_apart
        });
        is_apart
    })
}

/// The links of vertices whose vectors are `bytes`, parted into `leaves`.
pub(crate) fn link(bytes: &Bytes, leaves: &[Vec<u32>], degree: usize, stage: &Stage<'_>) -> Result<Links> {
    let stage = &stage.in_units(4 * bytes.len() as u64);
    let first = within_leaves(bytes, leaves, stage)?;
    let chosen = each(bytes.len(), stage, |slot| {
        let mut candidates = first.get(slot as usize).cloned().unwrap_or_default();
        tidy(&mut candidates, CANDIDATES);
        choose(bytes, &candidates, degree / 2)
    })?;
    let rough = both_ways(bytes, &chosen, degree, false, stage)?;
    let links = links_of(&rough, degree);
    let better = each(bytes.len(), stage, |slot| {
        let mut candidates = walk(bytes, &links, slot);
        candidates.extend(rough.get(slot as usize).into_iter().flatten());
        tidy(&mut candidates, CANDIDATES);
        choose(bytes, &candidates, degree)
    })?;
    Ok(links_of(&both_ways(bytes, &better, degree, true, stage)?, degree))
}

/// Runs a step for each vertex. Parallel; the result is in their order.
fn each(len: usize, stage: &Stage<'_>, step: impl Fn(u32) -> Vec<Near> + Sync) -> Result<Vec<Vec<Near>>> {
    let pieces: Vec<Vec<Vec<Near>>> = (0..len.div_ceil(PIECE))
        .into_par_iter()
        .map(|piece| {
            stage.check()?;
            let slots = piece * PIECE..len.min((piece + 1) * PIECE);
            stage.advance(slots.len() as u64);
            Ok(slots.map(|slot| step(slot as u32)).collect())
        })
        .collect::<Result<_>>()?;
    Ok(pieces.into_iter().flatten().collect())
}

fn links_of(chosen: &[Vec<Near>], degree: usize) -> Links {
    let mut links = Links::new(degree, chosen.len());
    let mut slots = Vec::with_capacity(degree);
    for (slot, near) in (0..).zip(chosen) {
        slots.clear();
        slots.extend(near.iter().map(|near| near.slot));
        links.set(slot, &slots);
    }
    links
}

/// The chosen ones of each leaf, for each vertex.
fn within_leaves(bytes: &Bytes, leaves: &[Vec<u32>], stage: &Stage<'_>) -> Result<Vec<Vec<Near>>> {
    let parts: Vec<Vec<(u32, Near)>> = leaves
        .par_iter()
        .map(|leaf| {
            stage.check()?;
            Ok(within_leaf(bytes, leaf))
        })
        .collect::<Result<_>>()?;
    let mut edges = vec![Vec::new(); bytes.len()];
    for (slot, near) in parts.into_iter().flatten() {
        if let Some(edges) = edges.get_mut(slot as usize) {
            edges.push(near);
        }
    }
    Ok(edges)
}

fn within_leaf(bytes: &Bytes, leaf: &[u32]) -> Vec<(u32, Near)> {
    let len = leaf.len();
    let mut distances = vec![0.0; len * len];
    for (a, &first) in leaf.iter().enumerate() {
        bytes.distances(first, leaf.get(..a).unwrap_or_default(), |b, distance| {
            for at in [a * len + b, b * len + a] {
                if let Some(place) = distances.get_mut(at) {
                    *place = distance;
                }
            }
            true
        });
    }
    let mut edges = Vec::with_capacity(2 * LEAF_DEGREE * len);
    let mut near: Vec<Near> = Vec::with_capacity(len);
    for (a, &slot) in leaf.iter().enumerate() {
        let row = distances.get(a * len..(a + 1) * len).unwrap_or_default();
        near.clear();
        near.extend((0..).zip(row).map(|(slot, &distance)| Near { distance, slot }));
        near.swap_remove(a);
        if near.len() > LEAF_CANDIDATES {
            near.select_nth_unstable_by(LEAF_CANDIDATES, Near::order);
            near.truncate(LEAF_CANDIDATES);
        }
        near.sort_unstable_by(Near::order);
        let between = |a: u32, b: u32| distances.get(a as usize * len + b as usize).copied().unwrap_or(0.0);
        let is_apart = |candidate: &Near, chosen: &[u32]| {
            chosen.iter().all(|&other| DETOUR * between(candidate.slot, other) > candidate.distance)
        };
        for chosen in choose_where(&near, LEAF_DEGREE, is_apart) {
            let Some(&other) = leaf.get(chosen.slot as usize) else { continue };
            edges.push((slot, Near { slot: other, ..chosen }));
        }
    }
    edges
}

/// Adds the way back of each edge, and chooses anew where there are too many.
fn both_ways(
    bytes: &Bytes,
    chosen: &[Vec<Near>],
    degree: usize,
    chosen_well: bool,
    stage: &Stage<'_>,
) -> Result<Vec<Vec<Near>>> {
    let mut back: Vec<Vec<Near>> = vec![Vec::new(); chosen.len()];
    for (slot, near) in (0..).zip(chosen) {
        for &Near { distance, slot: to } in near {
            if let Some(back) = back.get_mut(to as usize) {
                back.push(Near { distance, slot });
            }
        }
    }
    each(chosen.len(), stage, |slot| {
        let mut near = chosen.get(slot as usize).cloned().unwrap_or_default();
        near.extend(back.get(slot as usize).into_iter().flatten());
        tidy(&mut near, usize::MAX);
        if near.len() <= degree {
            return near;
        }
        near.truncate(CANDIDATES);
        if !chosen_well {
            near.truncate(degree);
            return near;
        }
        choose(bytes, &near, degree)
    })
}

thread_local! {
    static VISITED: RefCell<Visited> = RefCell::default();
}

/// The vertices that a walk towards a vertex has found to be nearest, itself left out.
fn walk(bytes: &Bytes, links: &Links, target: u32) -> Vec<Near> {
    VISITED.with_borrow_mut(|visited| {
        visited.begin(bytes.len());
        visited.insert(target);
        let mut pool: Vec<Near> = Vec::with_capacity(BEAM + 1);
        let mut expanded = Vec::with_capacity(BEAM + 1);
        let mut fresh = Vec::new();
        let mut next = 0;
        visited.sift(links.places(target), &mut fresh);
        loop {
            bytes.distances(target, &fresh, |at, distance| {
                let Some(&slot) = fresh.get(at) else { return false };
                let near = Near { distance, slot };
                if pool.len() == BEAM && pool.last().is_some_and(|worst| near.order(worst).is_ge()) {
                    return true;
                }
                let at = pool.partition_point(|other| other.order(&near).is_lt());
                pool.insert(at, near);
                expanded.insert(at, false);
                pool.truncate(BEAM);
                expanded.truncate(BEAM);
                next = next.min(at);
                true
            });
            while expanded.get(next) == Some(&true) {
                next += 1;
            }
            let (Some(&Near { slot, .. }), Some(expanded)) = (pool.get(next), expanded.get_mut(next)) else {
                break;
            };
            *expanded = true;
            fresh.clear();
            visited.sift(links.places(slot), &mut fresh);
            fresh.iter().for_each(|&link| bytes.fetch(link));
        }
        visited.end();
        pool
    })
}
