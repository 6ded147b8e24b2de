//! Which id each row has, and back.

use std::collections::HashSet;
use std::sync::OnceLock;

use hashbrown::HashTable;
use limnion_types::{Error, ErrorKind, Result};

use crate::storage::Storage;

/// The ids of an index. Rows numbered 0, 1, 2 … cost nothing.
#[derive(Debug, Clone)]
pub(crate) enum Ids {
    Dense { len: usize },
    Listed(Listed),
}

#[derive(Debug, Clone)]
pub(crate) struct Listed {
    ids: Storage<u64>,
    /// The row of each id, made when first asked for, so that opening a file does not wait for it.
    rows: OnceLock<HashTable<u32>>,
}

/// The finaliser of SplitMix64: ids are often consecutive, and the table wants bits that are not.
fn hash(id: u64) -> u64 {
    let z = (id ^ (id >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Listed {
    fn rows(&self) -> &HashTable<u32> {
        self.rows.get_or_init(|| index_rows(&self.ids))
    }

    /// Changes both directions at once.
    fn change(&mut self, change: impl FnOnce(&mut Vec<u64>, &mut HashTable<u32>)) {
        let mut rows = self.rows.take().unwrap_or_else(|| index_rows(&self.ids));
        change(self.ids.to_mut(), &mut rows);
        self.rows = OnceLock::from(rows);
    }
}

fn index_rows(ids: &[u64]) -> HashTable<u32> {
    let mut rows = HashTable::with_capacity(ids.len());
    for (row, &id) in ids.iter().enumerate() {
        rows.insert_unique(hash(id), row as u32, |&row| hash(id_at(ids, row)));
    }
    rows
}

fn id_at(ids: &[u64], row: u32) -> u64 {
    ids.get(row as usize).copied().unwrap_or(u64::MAX)
}

impl Ids {
    pub(crate) fn listed(ids: Storage<u64>) -> Self {
        Self::Listed(Listed { ids, rows: OnceLock::new() })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Dense { len } => *len,
            Self::Listed(listed) => listed.ids.len(),
        }
    }

    /// The list, where ids are not just the rows' numbers.
    pub(crate) fn list(&self) -> Option<&Storage<u64>> {
        match self {
            Self::Dense { .. } => None,
            Self::Listed(listed) => Some(&listed.ids),
        }
    }

    pub(crate) fn id(&self, row: u32) -> u64 {
        match self {
            Self::Dense { .. } => u64::from(row),
            Self::Listed(listed) => id_at(&listed.ids, row),
        }
    }

    pub(crate) fn row(&self, id: u64) -> Option<u32> {
        match self {
            Self::Dense { len } => (id < *len as u64).then_some(id as u32),
            Self::Listed(listed) => {
                listed.rows().find(hash(id), |&row| id_at(&listed.ids, row) == id).copied()
            }
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u64> {
        match self {
            Self::Dense { len } => (0..*len as u64).collect(),
            Self::Listed(listed) => listed.ids.to_vec(),
        }
    }

    /// Whether no id comes twice, as in a file they might.
    pub(crate) fn are_different(&self) -> bool {
        let Self::Listed(listed) = self else { return true };
        let rows = listed.rows();
        listed.ids.iter().enumerate().all(|(row, &id)| {
            rows.find(hash(id), |&candidate| id_at(&listed.ids, candidate) == id) == Some(&(row as u32))
        })
    }

    /// The ids that `count` further rows get when nobody names them: those after the largest.
    pub(crate) fn next(&self, count: usize) -> Result<Vec<u64>> {
        let first = match self {
            Self::Dense { len } => Some(*len as u64),
            Self::Listed(listed) => listed.ids.iter().max().map_or(Some(0), |largest| largest.checked_add(1)),
        };
        first.and_then(|first| Some((first..first.checked_add(count as u64)?).collect())).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "no id is free above the largest one")
                .suggest("give ids yourself")
        })
    }

    /// An error unless all of `ids` are new and different.
    pub(crate) fn check_new(&self, ids: &[u64]) -> Result<()> {
        let mut seen = HashSet::with_capacity(ids.len());
        for (at, &id) in ids.iter().enumerate() {
            if !seen.insert(id) {
                let message = format!("ids must be different, got {id} twice (again at position {at})");
                return Err(Error::new(ErrorKind::DuplicateId, message));
            }
            if self.row(id).is_some() {
                let message = format!("id {id} (at position {at}) is in the index already");
                return Err(Error::new(ErrorKind::DuplicateId, message).suggest("use update, or another id"));
            }
        }
        Ok(())
    }

    /// The row of each id; an error where one is missing or comes twice.
    pub(crate) fn find_all(&self, ids: &[u64]) -> Result<Vec<u32>> {
        let mut seen = HashSet::with_capacity(ids.len());
        ids.iter()
            .map(|&id| {
                let row = self.row(id).ok_or_else(|| not_found(id))?;
                if seen.insert(row) {
                    return Ok(row);
                }
                Err(Error::new(ErrorKind::DuplicateId, format!("ids must be different, got {id} twice")))
            })
            .collect()
    }

    /// Appends ids that [`Ids::check_new`] has passed.
    pub(crate) fn extend(&mut self, new: &[u64]) {
        if let Self::Dense { len } = self {
            if new.iter().enumerate().all(|(i, &id)| id == (*len + i) as u64) {
                *len += new.len();
                return;
            }
            *self = Self::listed(Storage::new(self.to_vec()));
        }
        let Self::Listed(listed) = self else { return };
        if listed.rows.get().is_none() {
            // Nobody has asked for rows yet: whoever does so first builds the table once, for all.
            listed.ids.to_mut().extend_from_slice(new);
            return;
        }
        listed.change(|ids, rows| {
            for &id in new {
                ids.push(id);
                rows.insert_unique(hash(id), (ids.len() - 1) as u32, |&row| hash(id_at(ids, row)));
            }
        });
    }

    /// Takes the last `count` ids back.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len() > len {
            self.swap_remove((self.len() - 1) as u32);
        }
    }

    /// Removes the id of `row`; the last row takes its place.
    pub(crate) fn swap_remove(&mut self, row: u32) {
        if let Self::Dense { len } = self {
            if row as usize + 1 == *len {
                *len -= 1;
                return;
            }
            *self = Self::listed(Storage::new(self.to_vec()));
        }
        let Self::Listed(listed) = self else { return };
        listed.change(|ids, rows| {
            let last = (ids.len() - 1) as u32;
            let (id, moved) = (id_at(ids, row), id_at(ids, last));
            if let Ok(entry) = rows.find_entry(hash(id), |&candidate| candidate == row) {
                entry.remove();
            }
            if last != row
                && let Some(place) = rows.find_mut(hash(moved), |&candidate| candidate == last)
            {
                *place = row;
            }
            ids.swap_remove(row as usize);
        });
    }

    pub(crate) fn shrink(&mut self) {
        if let Self::Listed(listed) = self {
            listed.ids.shrink();
            listed.change(|ids, rows| {
                if rows.len() <= rows.capacity() / 4 {
                    rows.shrink_to_fit(|&row| hash(id_at(ids, row)));
                }
            });
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Dense { .. } => 0,
            Self::Listed(listed) => {
                listed.ids.heap_bytes() + listed.rows.get().map_or(0, HashTable::allocation_size)
            }
        }
    }
}

/// The error for an id that is not there.
pub(crate) fn not_found(id: u64) -> Error {
    Error::new(ErrorKind::IdNotFound, format!("id {id} is not in the index"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn any_run_of_changes_agrees_with_a_plain_map() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let mut ids = Ids::Dense { len: 0 };
        let mut rows: Vec<u64> = Vec::new();
        for step in 0..4000_u64 {
            if random() % 3 != 0 || rows.is_empty() {
                let id = if step < 100 { rows.len() as u64 } else { random() % 5000 };
                let taken = rows.contains(&id);
                assert_eq!(ids.check_new(&[id]).is_err(), taken);
                if !taken {
                    ids.extend(&[id]);
                    rows.push(id);
                }
            } else {
                let row = random() as usize % rows.len();
                ids.swap_remove(row as u32);
                rows.swap_remove(row);
                ids.shrink();
            }
            assert_eq!(ids.len(), rows.len());
        }
        assert_eq!(ids.to_vec(), rows);
        let by_id: HashMap<u64, usize> = rows.iter().enumerate().map(|(row, &id)| (id, row)).collect();
        for id in 0..5000 {
            assert_eq!(ids.row(id).map(|row| row as usize), by_id.get(&id).copied());
        }
    }
}
