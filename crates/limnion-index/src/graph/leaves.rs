//! Parting vectors into leaves of near ones that overlap, where the first edges of a graph are found.
//!
//! A group is parted by leaders picked at random: each vector goes to the nearest few of them, and the groups are parted
//! again until they are small. A vector comes to several leaves, and its neighbours mostly to one of them.

use limnion_rabitq::SplitMix64;
use limnion_types::{Job, Result};
use rayon::prelude::*;

use crate::graph::bytes::Bytes;

/// The most vectors of a leaf.
pub(crate) const LEAF: usize = 320;
/// The most leaders of a group.
const LEADERS: usize = 64;
/// How many leaders a vector goes to, level by level; beyond, one.
const FANOUTS: [usize; 2] = [4, 2];

/// A vector in a group; whoever came by the nearest leaders alone is there first of all.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) number: u32,
    first: bool,
}

/// Overlapping leaves of all vectors, and an order of the vectors in which near ones lie close.
pub(crate) fn leaves(bytes: &Bytes, seed: u64, job: &Job) -> Result<(Vec<Vec<u32>>, Vec<u32>)> {
    let all = (0..bytes.len() as u32).map(|number| Member { number, first: true }).collect();
    let leaves = part(bytes, all, 0, seed, job)?;
    let order = leaves.iter().flatten().filter(|member| member.first).map(|member| member.number).collect();
    let numbers = |leaf: Vec<Member>| leaf.into_iter().map(|member| member.number).collect();
    Ok((leaves.into_iter().map(numbers).collect(), order))
}

fn part(bytes: &Bytes, group: Vec<Member>, depth: usize, seed: u64, job: &Job) -> Result<Vec<Vec<Member>>> {
    if group.len() <= LEAF {
        return Ok(vec![group]);
    }
    job.check()?;
    let mut random = SplitMix64::new(seed ^ group.len() as u64);
    let count = (group.len() * 2 / LEAF + 1).clamp(2, LEADERS);
    let leaders: Vec<u32> = (0..count)
        .filter_map(|_| group.get((random.next_u64() % group.len() as u64) as usize))
        .map(|member| member.number)
        .collect();
    let fanout = FANOUTS.get(depth).copied().unwrap_or(1).min(count / 2).max(1);
    let nearest = |member: &Member| -> Vec<(f32, u32)> {
        let mut near: Vec<(f32, u32)> = Vec::with_capacity(leaders.len());
        bytes.distances(member.number, &leaders, |at, distance| {
            near.push((distance, at as u32));
            true
        });
        near.select_nth_unstable_by(fanout - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        near.truncate(fanout);
        near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        near
    };
    let near: Vec<Vec<(f32, u32)>> = group.par_iter().with_min_len(256).map(nearest).collect();
    let mut groups: Vec<Vec<Member>> = vec![Vec::new(); count];
    for (member, near) in group.iter().zip(near) {
        for (rank, (_, leader)) in near.into_iter().enumerate() {
            if let Some(group) = groups.get_mut(leader as usize) {
                group.push(Member { number: member.number, first: member.first && rank == 0 });
            }
        }
    }
    groups.retain(|group| !group.is_empty());
    let most = group.len() - group.len() / 8;
    let seeds: Vec<u64> = groups.iter().map(|_| random.next_u64()).collect();
    let parts: Vec<Vec<Vec<Member>>> = groups
        .into_par_iter()
        .zip(seeds)
        .map(|(group, seed)| {
            if group.len() > most {
                // Vectors that are alike: no leader tells them apart.
                return Ok(group.chunks(LEAF).map(<[Member]>::to_vec).collect());
            }
            part(bytes, group, depth + 1, seed, job)
        })
        .collect::<Result<_>>()?;
    Ok(parts.into_iter().flatten().collect())
}
