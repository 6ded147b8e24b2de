//! The plainest thing that could be an engine: a list of all versions, searched from one end to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use limnion_store::engine::{
    Commit, Current, Found, Head, Keyed, NamespaceInfo, Place, Row, SegmentInfo, Tag, Write,
};
use limnion_store::model::{At, KeyRange, Kind, Seq};
use limnion_store::text::{TextQuery, words};

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) versions: Vec<Version>,
    /// All commits there ever were.
    pub(crate) commits: Vec<Commit>,
    /// The log begins here.
    pub(crate) first: Seq,
    pub(crate) tags: BTreeMap<String, Tag>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) texts: BTreeMap<(Arc<str>, Arc<str>), Arc<str>>,
    pub(crate) segments: BTreeMap<u32, SegmentInfo>,
    pub(crate) values: BTreeMap<[u8; 32], Place>,
    pub(crate) settings: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) namespace: Arc<str>,
    pub(crate) key: Arc<str>,
    pub(crate) row: Row,
    pub(crate) retired: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Index {
    pub(crate) namespace: String,
    pub(crate) field: String,
    pub(crate) entries: BTreeSet<(Vec<u8>, Arc<str>)>,
}

impl Model {
    pub(crate) fn head(&self) -> Head {
        self.commits.last().map(|commit| commit.head).unwrap_or_default()
    }

    pub(crate) fn log(&self) -> Vec<Commit> {
        self.commits.iter().filter(|commit| commit.head.seq >= self.first).cloned().collect()
    }

    /// The versions of a record that are kept, oldest first.
    pub(crate) fn rows(&self, namespace: &str, key: &str) -> Vec<&Row> {
        let of_record = |v: &&Version| &*v.namespace == namespace && &*v.key == key && !v.retired;
        self.versions.iter().filter(of_record).map(|version| &version.row).collect()
    }

    /// First and last of each run of versions that were dropped, with none between them that was kept.
    pub(crate) fn retired(&self, namespace: &str, key: &str) -> Vec<(Seq, Seq)> {
        let mut runs: Vec<(Seq, Seq)> = Vec::new();
        let mut kept = true;
        for version in self.versions.iter().filter(|v| &*v.namespace == namespace && &*v.key == key) {
            let seq = version.row.seq;
            match runs.last_mut() {
                Some(run) if version.retired && !kept => run.1 = seq,
                _ if version.retired => runs.push((seq, seq)),
                _ => {}
            }
            kept = !version.retired;
        }
        runs
    }

    /// All records, in the order of namespaces and keys.
    pub(crate) fn records(&self) -> BTreeSet<(Arc<str>, Arc<str>)> {
        self.versions.iter().map(|v| (v.namespace.clone(), v.key.clone())).collect()
    }

    pub(crate) fn current(&self, namespace: &str, key: &str) -> Option<Current> {
        let row = *self.rows(namespace, key).last()?;
        Some(Current { seq: row.seq, kind: row.kind, expires: row.expires })
    }

    /// Newest first.
    pub(crate) fn history(&self, namespace: &str, key: &str, after: Option<At>, at: At) -> Vec<Found> {
        let rows = self.rows(namespace, key);
        let mut found = Vec::new();
        for (place, row) in rows.iter().enumerate().rev() {
            let too_early = after.is_some_and(|after| after.includes(row.seq, row.time));
            if at.includes(row.seq, row.time) && !too_early {
                let next_previous = rows.get(place + 1).map(|next| next.previous);
                found.push(Found { row: (*row).clone(), next_previous });
            }
        }
        found
    }

    pub(crate) fn get(&self, namespace: &str, key: &str, at: At) -> Option<Found> {
        self.history(namespace, key, None, at).into_iter().next()
    }

    pub(crate) fn scan(
        &self,
        namespace: &str,
        range: &KeyRange,
        at: At,
        limit: usize,
        reverse: bool,
        payloads: bool,
    ) -> Vec<Keyed> {
        let mut all = Vec::new();
        for (of, key) in self.records() {
            if &*of == namespace
                && range.contains(&key)
                && let Some(mut found) = self.get(namespace, &key, at)
            {
                if !payloads {
                    found.row.payload = Arc::default();
                    found.row.places.clear();
                }
                all.push(Keyed { key: key.to_string(), found });
            }
        }
        if reverse {
            all.reverse();
        }
        all.truncate(limit);
        all
    }

    pub(crate) fn info(&self) -> BTreeMap<String, NamespaceInfo> {
        let mut all = BTreeMap::<String, NamespaceInfo>::new();
        for (namespace, key) in self.records() {
            let info = all.entry(namespace.to_string()).or_default();
            let rows = self.rows(&namespace, &key);
            let (newest, older) = rows.split_last().expect("the newest version is kept");
            info.keys += u64::from(newest.kind == Kind::Put);
            info.versions += rows.len() as u64;
            info.bytes += newest.payload.len() as u64;
            info.history_bytes += older.iter().map(|row| row.payload.len() as u64).sum::<u64>();
        }
        all
    }

    pub(crate) fn expired(&self, now: u64) -> BTreeSet<(Arc<str>, Arc<str>)> {
        let has_run_out = |(namespace, key): &(Arc<str>, Arc<str>)| {
            let current = self.current(namespace, key).expect("a version");
            current.kind == Kind::Put && current.expires.is_some_and(|expires| expires <= now)
        };
        self.records().into_iter().filter(has_run_out).collect()
    }

    pub(crate) fn lookup(&self, namespace: &str, field: &str, from: &[u8], to: &[u8]) -> Vec<String> {
        let index = self.indexes.iter().find(|i| i.namespace == namespace && i.field == field);
        let entries = index.expect("an index").entries.iter();
        entries.filter(|(e, _)| from <= e && e.as_slice() <= to).map(|(_, key)| key.to_string()).collect()
    }

    /// Key and score of all matches, in no order, by the formula as it is written down.
    pub(crate) fn text_search(&self, namespace: &str, query: &TextQuery) -> BTreeMap<String, f64> {
        let texts = self.texts.iter().filter(|((of, _), _)| &**of == namespace);
        let texts: Vec<(&str, Vec<String>)> = texts.map(|((_, key), text)| (&**key, words(text))).collect();
        let total: usize = texts.iter().map(|(_, words)| words.len()).sum();
        let average = total as f64 / texts.len() as f64;
        let occurrences = |clause: &limnion_store::text::Clause, text: &[String]| {
            let mut count = 0;
            for start in 0..text.len() {
                let matches = clause.words.iter().enumerate().all(|(at, word)| match text.get(start + at) {
                    Some(said) if clause.prefix && at + 1 == clause.words.len() => said.starts_with(word),
                    Some(said) => said == word,
                    None => false,
                });
                count += usize::from(matches);
            }
            count as f64
        };
        let mut scores = BTreeMap::new();
        'texts: for (key, text) in &texts {
            let mut score = 0.0;
            for clause in query.clauses() {
                let tf = occurrences(clause, text);
                if (tf > 0.0) == clause.negated {
                    continue 'texts;
                }
                if !clause.negated {
                    let n = texts.iter().filter(|(_, text)| occurrences(clause, text) > 0.0).count() as f64;
                    let idf = (1.0 + (texts.len() as f64 - n + 0.5) / (n + 0.5)).ln();
                    let length = text.len() as f64 / average;
                    score += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length));
                }
            }
            scores.insert((*key).to_owned(), score);
        }
        scores
    }

    pub(crate) fn write(&mut self, write: &Write, fields: &[(usize, Vec<u8>)]) {
        let name = (write.namespace.clone(), write.key.clone());
        self.texts.remove(&name);
        if let Some(text) = &write.text {
            self.texts.insert(name, text.clone());
        }
        for index in &mut self.indexes {
            if index.namespace == *write.namespace {
                index.entries.retain(|(_, key)| *key != write.key);
            }
        }
        for (index, entry) in fields {
            self.indexes[*index].entries.insert((entry.clone(), write.key.clone()));
        }
        self.versions.push(Version {
            namespace: write.namespace.clone(),
            key: write.key.clone(),
            row: write.row.clone(),
            retired: false,
        });
    }

    pub(crate) fn retire(&mut self, namespace: &str, key: &str, seqs: &[Seq], freed: &[(u32, u64)]) {
        for version in &mut self.versions {
            if &*version.namespace == namespace && &*version.key == key && seqs.contains(&version.row.seq) {
                version.retired = true;
            }
        }
        for (id, bytes) in freed {
            if let Some(segment) = self.segments.get_mut(id) {
                segment.live = segment.live.saturating_sub(*bytes);
            }
        }
    }
}
