//! Which vertices each vertex of a graph leads to.

use limnion_simd::prefetch;

use crate::search::NO_ROW;
use crate::storage::Storage;

/// So many links of every vertex, or fewer: then [`NO_ROW`] follows the last.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    degree: usize,
    all: Storage<u32>,
}

impl Links {
    /// Those of so many vertices that lead nowhere.
    pub(crate) fn new(degree: usize, len: usize) -> Self {
        let mut all = Storage::with_capacity(len * degree);
        all.to_mut().resize(len * degree, NO_ROW);
        Self { degree, all }
    }

    pub(crate) fn from_parts(degree: usize, all: Storage<u32>) -> Self {
        Self { degree, all }
    }

    pub(crate) fn all(&self) -> &Storage<u32> {
        &self.all
    }

    pub(crate) fn degree(&self) -> usize {
        self.degree
    }

    /// The links of a vertex, nearest first.
    pub(crate) fn of(&self, slot: u32) -> impl Iterator<Item = u32> + '_ {
        self.places(slot).iter().copied().take_while(|&link| link != NO_ROW)
    }

    /// The links of a vertex, and [`NO_ROW`] for each that it could have more.
    pub(crate) fn places(&self, slot: u32) -> &[u32] {
        let start = slot as usize * self.degree;
        self.all.get(start..start + self.degree).unwrap_or_default()
    }

    /// Has the links of a vertex fetched from memory while other work is done.
    pub(crate) fn fetch(&self, slot: u32) {
        prefetch(bytemuck::cast_slice(self.places(slot)));
    }

    pub(crate) fn set(&mut self, slot: u32, links: &[u32]) {
        let start = slot as usize * self.degree;
        if let Some(places) = self.all.to_mut().get_mut(start..start + self.degree) {
            places.fill(NO_ROW);
            places.iter_mut().zip(links).for_each(|(place, &link)| *place = link);
        }
    }

    /// Adds a link in place of the farthest, where there are no more to be had.
    pub(crate) fn add(&mut self, slot: u32, link: u32) {
        let start = slot as usize * self.degree;
        let Some(places) = self.all.to_mut().get_mut(start..start + self.degree) else { return };
        let free = places.iter().position(|&place| place == NO_ROW).unwrap_or(self.degree - 1);
        if let Some(place) = places.get_mut(free) {
            *place = link;
        }
    }

    /// How many links there are.
    pub(crate) fn count(&self) -> usize {
        self.all.iter().filter(|&&link| link != NO_ROW).count()
    }

    /// Adds vertices that lead nowhere, up to `len`; or forgets the last.
    pub(crate) fn resize(&mut self, len: usize) {
        let degree = self.degree;
        self.all.to_mut().resize(len * degree, NO_ROW);
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.all.heap_bytes()
    }
}
