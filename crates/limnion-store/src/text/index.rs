//! Full text in memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Clause, Ranking, TextQuery, each_word};

/// So many removed texts do not matter.
const GAPS: usize = if cfg!(test) { 4 } else { 1024 };

/// An inverted index over texts, each under a number: finds those that match a query, best first.
///
/// A text takes four bytes a word, and four more for each word that it has for the first time.
///
/// ```
/// use limnion_store::text::{TextIndex, TextQuery};
///
/// let mut index = TextIndex::default();
/// index.insert(7, "A small lake in the hills");
/// index.insert(9, "The sea");
/// let hits = index.search(&TextQuery::parse("lak*")?, 10);
/// assert_eq!(hits.len(), 1);
/// assert_eq!(hits[0].0, 7);
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TextIndex {
    /// The number of each word that some text had since the last tidying.
    words: BTreeMap<Arc<str>, u32>,
    /// For each word the slots of the texts that have it, ascending; slots that are empty by now may be among them.
    lists: Vec<Vec<u32>>,
    /// The texts in the order in which they came.
    slots: Vec<Option<Text>>,
    /// Where each text lies.
    ids: HashMap<u64, u32>,
    /// The words of all texts, each as often as it occurs.
    total: u64,
    /// Bytes of the words themselves.
    word_bytes: usize,
}

#[derive(Debug, Clone)]
struct Text {
    id: u64,
    /// Its words, in order.
    words: Box<[u32]>,
}

/// One word of a clause: the numbers of the words of texts that it stands for.
type Choice = HashSet<u32>;

impl TextIndex {
    /// An index without texts.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Puts a text under a number, in place of the one that was there.
    pub fn insert(&mut self, id: u64, text: &str) {
        self.remove(id);
        let slot = self.slots.len() as u32;
        let mut numbers = Vec::new();
        each_word(text, |word| {
            let number = self.number(word);
            if let Some(list) = self.lists.get_mut(number as usize)
                && list.last() != Some(&slot)
            {
                list.push(slot);
            }
            numbers.push(number);
        });
        self.total += numbers.len() as u64;
        self.slots.push(Some(Text { id, words: numbers.into() }));
        self.ids.insert(id, slot);
    }

    /// Forgets the text under a number; says whether there was one.
    pub fn remove(&mut self, id: u64) -> bool {
        let Some(slot) = self.ids.remove(&id) else { return false };
        if let Some(text) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.total -= text.words.len() as u64;
        }
        if self.slots.len() > 2 * self.ids.len() + GAPS {
            self.tidy();
        }
        true
    }

    /// The best matches: number and score, ties by number.
    pub fn search(&self, query: &TextQuery, limit: usize) -> Vec<(u64, f64)> {
        self.search_by(query, limit, |a, b| a.cmp(&b))
    }

    /// The best matches: number and score, ties as `order` says.
    pub fn search_by(
        &self,
        query: &TextQuery,
        limit: usize,
        order: impl Fn(u64, u64) -> Ordering,
    ) -> Vec<(u64, f64)> {
        let (unwanted, wanted): (Vec<_>, Vec<_>) =
            query.clauses().iter().map(|clause| (clause, self.choices(clause))).partition(|(c, _)| c.negated);
        let wanted: Vec<(Vec<Choice>, Vec<u32>)> = wanted
            .into_iter()
            .map(|(_, choices)| {
                let slots = self.matching(&choices);
                (choices, slots)
            })
            .collect();
        let ranking = Ranking::new(
            self.ids.len() as u64,
            self.total,
            wanted.iter().map(|(_, slots)| slots.len() as u64),
        );
        let mut found = intersection(wanted.iter().map(|(_, slots)| slots.as_slice()).collect());
        for (_, choices) in unwanted {
            let unwanted = self.matching(&choices);
            found.retain(|slot| unwanted.binary_search(slot).is_err());
        }
        let texts = found.iter().filter_map(|&slot| self.text(slot));
        let mut hits: Vec<(u64, f64)> = texts
            .map(|text| {
                let occurrences = wanted.iter().map(|(choices, _)| occurrences(&text.words, choices));
                (text.id, ranking.score(text.words.len() as u64, occurrences))
            })
            .collect();
        let best = |a: &(u64, f64), b: &(u64, f64)| b.1.total_cmp(&a.1).then_with(|| order(a.0, b.0));
        if limit < hits.len() {
            hits.select_nth_unstable_by(limit, best);
            hits.truncate(limit);
        }
        hits.sort_unstable_by(best);
        hits
    }

    /// About how many bytes of memory this takes.
    pub fn memory_bytes(&self) -> usize {
        let tokens = self.total as usize * 4 + self.ids.len() * 16;
        let lists: usize = self.lists.iter().map(|list| list.capacity() * 4).sum();
        tokens
            + lists
            + self.slots.capacity() * 24
            + self.lists.capacity() * 24
            + self.word_bytes
            + self.words.len() * 48
    }

    /// The number of a word, new where it is.
    fn number(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.words.get(word) {
            return number;
        }
        let number = self.lists.len() as u32;
        self.words.insert(word.into(), number);
        self.word_bytes += word.len();
        self.lists.push(Vec::new());
        number
    }

    /// Closes the gaps that removed texts have left.
    fn tidy(&mut self) {
        let words = std::mem::take(&mut self.words);
        let mut spelled: Vec<Arc<str>> = vec!["".into(); self.lists.len()];
        for (word, number) in words {
            if let Some(place) = spelled.get_mut(number as usize) {
                *place = word;
            }
        }
        let old = std::mem::take(self);
        for text in old.slots.into_iter().flatten() {
            let slot = self.slots.len() as u32;
            let mut numbers = Vec::with_capacity(text.words.len());
            for word in text.words.iter().filter_map(|&number| spelled.get(number as usize)) {
                let number = self.number(word);
                if let Some(list) = self.lists.get_mut(number as usize)
                    && list.last() != Some(&slot)
                {
                    list.push(slot);
                }
                numbers.push(number);
            }
            self.total += numbers.len() as u64;
            self.ids.insert(text.id, slot);
            self.slots.push(Some(Text { id: text.id, words: numbers.into() }));
        }
    }

    fn text(&self, slot: u32) -> Option<&Text> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// What each word of a clause stands for.
    fn choices(&self, clause: &Clause) -> Vec<Choice> {
        let last = clause.words.len().saturating_sub(1);
        let choices = clause.words.iter().enumerate().map(|(at, word)| {
            if clause.prefix && at == last {
                let from = self
                    .words
                    .range::<str, _>((std::ops::Bound::Included(word.as_str()), std::ops::Bound::Unbounded));
                from.take_while(|(found, _)| found.starts_with(word.as_str()))
                    .map(|(_, &number)| number)
                    .collect()
            } else {
                self.words.get(word.as_str()).copied().into_iter().collect()
            }
        });
        choices.collect()
    }

    /// The slots of the texts that match a clause, ascending.
    fn matching(&self, choices: &[Choice]) -> Vec<u32> {
        let having: Vec<Vec<u32>> = choices.iter().map(|choice| self.having(choice)).collect();
        let mut slots = intersection(having.iter().map(Vec::as_slice).collect());
        if choices.len() > 1 {
            slots.retain(|&slot| self.text(slot).is_some_and(|text| occurrences(&text.words, choices) > 0));
        }
        slots
    }

    /// The slots of the texts that have one of these words, ascending.
    fn having(&self, choice: &Choice) -> Vec<u32> {
        let lists = choice.iter().filter_map(|&number| self.lists.get(number as usize));
        let mut slots: Vec<u32> =
            lists.flatten().copied().filter(|&slot| self.text(slot).is_some()).collect();
        if choice.len() > 1 {
            slots.sort_unstable();
            slots.dedup();
        }
        slots
    }
}

/// How often words occur that are, one after the other, among `choices`.
fn occurrences(words: &[u32], choices: &[Choice]) -> u64 {
    let here = |window: &&[u32]| window.iter().zip(choices).all(|(word, choice)| choice.contains(word));
    words.windows(choices.len().max(1)).filter(here).count() as u64
}

/// What is in all of these ascending lists.
fn intersection(mut lists: Vec<&[u32]>) -> Vec<u32> {
    lists.sort_by_key(|list| list.len());
    let Some((shortest, others)) = lists.split_first() else { return Vec::new() };
    let in_all = |slot: &&u32| others.iter().all(|list| list.binary_search(slot).is_ok());
    shortest.iter().filter(in_all).copied().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::{clause_score, idf, words};

    /// How often a clause occurs, looked for at each place.
    fn count(text: &[String], clause: &Clause) -> u64 {
        let here = |start: &usize| {
            clause.words.iter().enumerate().all(|(at, word)| {
                let last = at + 1 == clause.words.len();
                let said = text.get(start + at);
                said.is_some_and(|said| {
                    said == word || clause.prefix && last && said.starts_with(word.as_str())
                })
            })
        };
        (0..text.len()).filter(here).count() as u64
    }

    fn naive(texts: &BTreeMap<u64, String>, query: &TextQuery, limit: usize) -> Vec<(u64, f64)> {
        let texts: Vec<(u64, Vec<String>)> = texts.iter().map(|(id, text)| (*id, words(text))).collect();
        let average = texts.iter().map(|(_, text)| text.len()).sum::<usize>() as f64 / texts.len() as f64;
        let mut hits = Vec::new();
        for (id, text) in &texts {
            if query.clauses().iter().all(|clause| (count(text, clause) > 0) != clause.negated) {
                let scores = query.clauses().iter().filter(|clause| !clause.negated).map(|clause| {
                    let containing = texts.iter().filter(|(_, text)| count(text, clause) > 0).count() as u64;
                    let idf = idf(texts.len() as u64, containing);
                    clause_score(idf, count(text, clause), text.len() as u64, average)
                });
                hits.push((*id, scores.sum()));
            }
        }
        hits.sort_by(|a: &(u64, f64), b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        hits.truncate(limit);
        hits
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_looking_everywhere_finds(
            changes in proptest::collection::vec((0..12u64, proptest::option::weighted(0.7, "([ab]{1,2}|c| ){0,12}")), 0..80),
            queries in proptest::collection::vec("-?([ab]{1,2}\\*?|\"[abc ]{1,5}\"\\*?) a?", 1..6),
            limit in 0..12usize,
        ) {
            let (mut index, mut texts) = (TextIndex::new(), BTreeMap::new());
            for (id, text) in changes {
                match text {
                    Some(text) => {
                        index.insert(id, &text);
                        texts.insert(id, text);
                    }
                    None => prop_assert_eq!(index.remove(id), texts.remove(&id).is_some()),
                }
                prop_assert_eq!(index.len(), texts.len());
                prop_assert!(index.slots.len() <= 2 * texts.len() + GAPS + 1, "gaps are closed");
                for query in queries.iter().filter_map(|query| TextQuery::parse(query).ok()) {
                    prop_assert_eq!(index.search(&query, limit), naive(&texts, &query, limit));
                    let by_last = index.search_by(&query, usize::MAX, |a, b| b.cmp(&a));
                    prop_assert!(by_last.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 > b.0)));
                }
            }
        }
    }
}
