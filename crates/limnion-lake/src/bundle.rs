//! Indexes that many readers share, and that outlive a process: written with a witness of what they were built from.
//!
//! A bundle is three pieces on a [`Shelf`], of which the manifest is put there last, so that a reader finds the old bundle or the
//! new one, never half of one:
//!
//! ```text
//! bundle.json                what it is (below), at most 64 KiB
//! index-WITNESS.limn         the index, as limnion-index writes it; left out where there are no rows
//! names-WITNESS.bin          where ids are names: for each id of the index from 0 on the length of its name (u32), all ones
//!                            where no row has it, and the name's UTF-8 bytes
//! ```
//!
//! Numbers are little-endian, WITNESS the first 16 digits of the witness. On a shelf with several bundles each piece has a
//! prefix. The bundle before stays until the next one is published: who is reading it comes to an end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use limnion_index::{FlatIndex, Params, Precision, Source, Verify};
use limnion_types::{Error, ErrorKind, Job, Result};
use serde::{Deserialize, Serialize};

use crate::backend::{Description, Generation};
use crate::entry::{Body, Origin};
use crate::labels::Labels;
use crate::lake::Lake;
use crate::names;
use crate::shelf::Shelf;
use crate::slot::Target;
use crate::witness::{self, Claim, Witness, mismatch};

const MANIFEST: &str = "bundle.json";
/// The manifest of ruLake, which has no index.
const RULAKE: &str = "table.rulake.json";
const VERSION: u32 = 3;
const MANIFEST_BYTES: u64 = 64 << 10;
const TEXT_BYTES: usize = 4 << 10;
/// The length of a name that is none.
const FREE: u32 = u32::MAX;

/// What a published index is, and what it was built from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LakeBundle {
    /// Which version of this document: 3, or 1 and 2 as ruLake wrote them.
    pub format_version: u32,
    /// Where the data lies.
    pub data_ref: String,
    /// The generation of the data: a number, or a name.
    pub generation: BundleGeneration,
    /// Numbers a vector.
    pub dim: u64,
    /// How many rows.
    #[serde(default)]
    pub rows: u64,
    /// `cosine`, `ip` or `l2`.
    #[serde(default)]
    pub metric: String,
    /// Bits of a code.
    #[serde(default)]
    pub bits: u8,
    /// What is kept of the vectors: `f32`, `f16` or nothing.
    #[serde(default)]
    pub originals: Option<String>,
    /// The seed of the rotation.
    pub rotation_seed: u64,
    /// The fixed number of rows that is looked at closely for each hit; 0 for none.
    pub rerank_factor: u32,
    /// BLAKE3 over the rows, in hexadecimal.
    #[serde(default)]
    pub content: String,
    /// The witness, in hexadecimal.
    #[serde(alias = "rvf_witness")]
    pub witness: String,
    /// Whether ids are names.
    #[serde(default)]
    pub has_names: bool,
    /// BLAKE3 over the piece with the names, in hexadecimal; empty without.
    #[serde(default)]
    pub names_digest: String,
    /// A user's word on personal data in it.
    #[serde(default)]
    pub pii_policy: Option<String>,
    /// A user's word on where it comes from.
    #[serde(default)]
    pub lineage_id: Option<String>,
    /// A user's word on what kind of memory it is.
    #[serde(default)]
    pub memory_class: Option<String>,
}

/// A generation in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BundleGeneration {
    /// The number of a change.
    Number(u64),
    /// A name.
    Name(String),
}

impl From<&Generation> for BundleGeneration {
    fn from(generation: &Generation) -> Self {
        match generation {
            Generation::Number(number) => Self::Number(*number),
            Generation::Name(name) => Self::Name(name.to_string()),
        }
    }
}

impl From<&BundleGeneration> for Generation {
    fn from(generation: &BundleGeneration) -> Self {
        match generation {
            BundleGeneration::Number(number) => Self::Number(*number),
            BundleGeneration::Name(name) => Self::Name(name.as_str().into()),
        }
    }
}

/// What a look at a published bundle has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshResult {
    /// The index in memory is that of the bundle, or there is none in memory.
    UpToDate,
    /// Another one had been published: the index in memory was forgotten.
    Invalidated,
    /// There is no bundle.
    BundleMissing,
}

/// What a user says of a bundle.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// On personal data in it.
    pub pii_policy: Option<String>,
    /// On where it comes from.
    pub lineage_id: Option<String>,
    /// On what kind of memory it is.
    pub memory_class: Option<String>,
}

impl LakeBundle {
    /// Reads the manifest on a shelf, and whether it is what its witness says; `None` where there is none.
    ///
    /// # Errors
    /// `WitnessMismatch` for a manifest that is damaged or not consistent with itself, `Lake` where it cannot be read or is of a
    /// newer version.
    pub fn read(shelf: &dyn Shelf) -> Result<Option<Self>> {
        Self::read_with(shelf, "")
    }

    fn read_with(shelf: &dyn Shelf, prefix: &str) -> Result<Option<Self>> {
        let (name, bytes) = match shelf.get(&format!("{prefix}{MANIFEST}"), MANIFEST_BYTES + 1)? {
            Some(bytes) => (MANIFEST, bytes),
            None if prefix.is_empty() => match shelf.get(RULAKE, MANIFEST_BYTES + 1)? {
                Some(bytes) => (RULAKE, bytes),
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let place = format!("{}/{prefix}{name}", shelf.place());
        Self::parse(&bytes).map(Some).map_err(|error| error.within(place))
    }

    /// Reads a manifest, and whether it is what its witness says.
    ///
    /// # Errors
    /// As [`LakeBundle::read`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MANIFEST_BYTES {
            return Err(mismatch(format!("a manifest has at most {MANIFEST_BYTES} bytes")));
        }
        #[derive(Deserialize)]
        struct Versioned {
            format_version: u32,
        }
        let told = |error: serde_json::Error| mismatch(format!("the manifest cannot be read: {error}"));
        let Versioned { format_version } = serde_json::from_slice(bytes).map_err(told)?;
        if format_version > VERSION {
            let message = format!(
                "the bundle has version {format_version}; this version of limnion knows {VERSION} and older"
            );
            return Err(Error::new(ErrorKind::Lake, message).suggest("install a newer version of limnion"));
        }
        let bundle: Self = serde_json::from_slice(bytes).map_err(told)?;
        let notes = [&bundle.pii_policy, &bundle.lineage_id, &bundle.memory_class];
        let longest = notes.into_iter().flatten().map(String::len).max().unwrap_or(0);
        if longest.max(bundle.data_ref.len()) > TEXT_BYTES {
            return Err(mismatch(format!("a text of the manifest has more than {TEXT_BYTES} bytes")));
        }
        bundle.verify()?;
        Ok(bundle)
    }

    /// Whether the rows on a shelf are those that this manifest is of: all of them are read. A bundle of ruLake has no rows;
    /// of that the manifest is looked at.
    ///
    /// # Errors
    /// `WitnessMismatch` where they are others, or not whole; `CacheMiss` where there is no bundle; `Lake`.
    pub fn verify_on(&self, shelf: &dyn Shelf) -> Result<()> {
        self.verify()?;
        let there = Self::read(shelf)?.ok_or_else(|| no_bundle(shelf))?;
        if there.witness != self.witness {
            let message = format!(
                "the bundle in {} has the witness {}, and this one has {}",
                shelf.place(),
                there.witness,
                self.witness
            );
            return Err(Error::new(ErrorKind::WitnessMismatch, message)
                .suggest("another one has been published there since: read it anew"));
        }
        if self.format_version == VERSION {
            self.body(shelf, "", true)?;
        }
        Ok(())
    }

    /// Whether the manifest is what its witness says.
    ///
    /// # Errors
    /// `WitnessMismatch`.
    pub fn verify(&self) -> Result<()> {
        let expected = self.expected()?;
        if Witness::parse(&self.witness) != Some(expected) {
            return Err(mismatch(format!(
                "the witness is {}, and what it is for has {expected}",
                self.witness
            )));
        }
        Ok(())
    }

    fn expected(&self) -> Result<Witness> {
        let generation = Generation::from(&self.generation);
        if self.format_version < VERSION {
            let (seed, factor) = (self.rotation_seed, u64::from(self.rerank_factor));
            return Ok(Witness::rulake(&self.data_ref, self.dim, seed, factor, &generation));
        }
        let content = Witness::parse(&self.content)
            .ok_or_else(|| mismatch("the digest of the rows is not 64 hexadecimal digits".to_owned()))?;
        Ok(Witness::new(&Claim {
            source: &self.data_ref,
            generation: &generation,
            dim: self.dim,
            rows: self.rows,
            params: &self.params()?,
            content: content.bytes(),
        }))
    }

    fn params(&self) -> Result<Params> {
        let odd = |what: &str| mismatch(format!("the manifest has a {what} that cannot be"));
        Ok(Params {
            metric: self.metric.parse().map_err(|_| odd("metric"))?,
            bits: self.bits,
            originals: match self.originals.as_deref() {
                None => None,
                Some("f32") => Some(Precision::F32),
                Some("f16") => Some(Precision::F16),
                Some(_) => return Err(odd("precision")),
            },
            seed: self.rotation_seed,
            rerank_factor: Some(self.rerank_factor).filter(|&factor| factor > 0),
        })
    }

    fn of(body: &Body, notes: Notes) -> Result<Self> {
        let Origin { source, generation, params } = &body.origin;
        let content = witness::content(body.index.as_ref(), &body.labels)?;
        let dim = body.index.as_ref().map_or(0, FlatIndex::dim) as u64;
        let rows = body.len() as u64;
        let claim = Claim { source, generation, dim, rows, params, content: &content };
        Ok(Self {
            format_version: VERSION,
            data_ref: source.clone(),
            generation: generation.into(),
            dim,
            rows,
            metric: params.metric.as_str().to_owned(),
            bits: params.bits,
            originals: params.originals.map(|precision| match precision {
                Precision::F32 => "f32".to_owned(),
                Precision::F16 => "f16".to_owned(),
            }),
            rotation_seed: params.seed,
            rerank_factor: params.rerank_factor.unwrap_or(0),
            content: Witness::from_bytes(content).to_string(),
            witness: Witness::new(&claim).to_string(),
            has_names: matches!(body.labels, Labels::Names { .. }),
            names_digest: String::new(),
            pii_policy: notes.pii_policy,
            lineage_id: notes.lineage_id,
            memory_class: notes.memory_class,
        })
    }

    fn index_name(&self, prefix: &str) -> String {
        format!("{prefix}index-{}.limn", self.witness.get(..16).unwrap_or_default())
    }

    fn names_name(&self, prefix: &str) -> String {
        format!("{prefix}names-{}.bin", self.witness.get(..16).unwrap_or_default())
    }

    /// The index of the bundle. `verify` looks at all of it; else checksums are looked at when they are first needed.
    fn body(&self, shelf: &dyn Shelf, prefix: &str, verify: bool) -> Result<Body> {
        let place = shelf.place();
        let missing = |name: &str| mismatch(format!("{place}/{name} is missing"));
        if self.format_version < VERSION {
            return Err(Error::new(ErrorKind::Lake, "a bundle of ruLake has no index")
                .suggest("prime from the backend"));
        }
        let index = if self.dim == 0 {
            None
        } else {
            let name = self.index_name(prefix);
            let source: Source = shelf.open(&name)?.ok_or_else(|| missing(&name))?;
            let lazily = (!verify).then(|| FlatIndex::from_bytes(&source, Verify::OnFirstUse).ok()).flatten();
            // Bytes that were read, not mapped, may lie where they cannot be used as they are.
            let index = lazily
                .map_or_else(|| FlatIndex::from_bytes(&source, Verify::Now), Ok)
                .map_err(|error| mismatch(error.message().to_owned()).within(&name))?;
            Some(index)
        };
        let labels = if self.has_names {
            let name = self.names_name(prefix);
            let bytes = shelf.get(&name, u64::MAX)?.ok_or_else(|| missing(&name))?;
            let whole = digest(&bytes) == self.names_digest;
            whole
                .then(|| read_names(&bytes, self.rows))
                .flatten()
                .filter(|labels| !verify || labels.are_different())
                .ok_or_else(|| mismatch(format!("{place}/{name} is damaged")))?
        } else {
            Labels::Numbers
        };
        let params = self.params()?;
        let fits = index.as_ref().is_none_or(|index| {
            *index.params() == params && index.dim() as u64 == self.dim && index.len() as u64 == self.rows
        });
        if !fits {
            return Err(mismatch(format!("{place}: the index is not the one that the manifest is of")));
        }
        if verify
            && Witness::parse(&self.content)
                != Some(Witness::from_bytes(witness::content(index.as_ref(), &labels)?))
        {
            return Err(mismatch(format!(
                "{place}: the rows of the index are not those that the manifest is of"
            )));
        }
        let generation = Generation::from(&self.generation);
        Ok(Body::new(Origin { source: self.data_ref.clone(), generation, params }, index, labels))
    }
}

impl Lake {
    /// Publishes the index of a collection, so that others can take it as it is, and gives its manifest. The index is made
    /// ready first, as for a search.
    ///
    /// # Errors
    /// As [`Lake::prepare`], and `Lake` where the shelf cannot be written.
    pub fn publish(
        &self,
        target: &Target,
        shelf: &dyn Shelf,
        notes: Notes,
        deadline: Option<Instant>,
        job: &Job,
    ) -> Result<LakeBundle> {
        let ready = self.prepare(target, deadline, job)?;
        publish(&ready.body(), shelf, "", notes)
    }

    /// Compares the index of a collection in memory with a published one, and forgets it where they differ.
    ///
    /// # Errors
    /// As [`LakeBundle::read`]; `WitnessMismatch` where the bundle is of other data altogether.
    pub fn refresh_from(&self, target: &Target, shelf: &dyn Shelf) -> Result<RefreshResult> {
        let Some(bundle) = LakeBundle::read(shelf)? else { return Ok(RefreshResult::BundleMissing) };
        let Some(body) = self.cached(target) else { return Ok(RefreshResult::UpToDate) };
        if bundle.data_ref != body.origin.source {
            let message = format!(
                "the bundle in {} is of {}, and {target} is of {}",
                shelf.place(),
                bundle.data_ref,
                body.origin.source
            );
            return Err(mismatch(message));
        }
        let same = if bundle.format_version == VERSION {
            match LakeBundle::of(&body, Notes::default()) {
                Ok(mine) => mine.witness == bundle.witness,
                // It lies in a damaged file.
                Err(error) if error.kind() == ErrorKind::CorruptFile => false,
                Err(error) => return Err(error),
            }
        } else {
            Generation::from(&bundle.generation) == body.origin.generation
        };
        if same {
            return Ok(RefreshResult::UpToDate);
        }
        self.invalidate(target);
        Ok(RefreshResult::Invalidated)
    }

    /// Takes a published index for a collection, instead of building one. From then on it is looked after as if it had been
    /// built here: where the backend has moved on, it is brought up to date. `verify` looks at all of it now, else when it
    /// is first used: one that turns out damaged then is built anew.
    ///
    /// # Errors
    /// `WitnessMismatch` where it is not whole, or of other data than the backend's; `InvalidArgument` where it was built
    /// in another way than this lake builds; `CacheMiss` where there is no bundle; `Lake`; what the backend raises.
    pub fn take(&self, target: &Target, shelf: &dyn Shelf, verify: bool) -> Result<LakeBundle> {
        let bundle = LakeBundle::read(shelf)?.ok_or_else(|| no_bundle(shelf))?;
        let described = self.backend(&target.backend)?.describe(&target.collection)?;
        let body = bundle.body(shelf, "", verify)?;
        if let Some(why) = misfit(&body.origin, &described, &self.settings().params) {
            return Err(why.within(format!("the bundle in {}", shelf.place())));
        }
        self.adopt_body(target, body)?;
        Ok(bundle)
    }

    /// Writes all indexes in memory to a shelf, for [`Lake::warm_from`], and gives their collections. What was there of others
    /// stays there.
    ///
    /// # Errors
    /// `Lake` where the shelf cannot be written.
    pub fn save_to(&self, shelf: &dyn Shelf, job: &Job) -> Result<Vec<Target>> {
        let mut saved = Vec::new();
        for target in self.targets() {
            job.check()?;
            let Some(body) = self.cached(&target) else { continue };
            match publish(&body, shelf, &prefix(&target), Notes::default()) {
                Ok(_) => saved.push(target),
                // It lies in a damaged file, and is built anew by the next search.
                Err(error) if error.kind() == ErrorKind::CorruptFile => {}
                Err(error) => return Err(error),
            }
        }
        Ok(saved)
    }

    /// [`Lake::save_to`] for one collection; `None` where no index of it is in memory.
    pub(crate) fn save(&self, target: &Target, shelf: &dyn Shelf) -> Result<Option<LakeBundle>> {
        let Some(body) = self.cached(target) else { return Ok(None) };
        publish(&body, shelf, &prefix(target), Notes::default()).map(Some)
    }

    /// [`Lake::warm_from`] for one collection; `None` where nothing is there.
    pub(crate) fn warm(&self, target: &Target, shelf: &dyn Shelf) -> Result<Option<LakeBundle>> {
        let prefix = prefix(target);
        let Some(bundle) = LakeBundle::read_with(shelf, &prefix)? else { return Ok(None) };
        self.adopt_body(target, bundle.body(shelf, &prefix, false)?)?;
        Ok(Some(bundle))
    }

    /// Takes away what [`Lake::save`] has put there, but a bundle that is to stay.
    pub(crate) fn clear(target: &Target, shelf: &dyn Shelf, stays: Option<&LakeBundle>) {
        let prefix = prefix(target);
        let stays = stays.and_then(|bundle| bundle.witness.get(..16));
        for name in shelf.list().unwrap_or_default() {
            let is_ours = name.strip_prefix(&prefix).is_some_and(|rest| match stays {
                Some(stays) => rest != MANIFEST && !rest.contains(stays),
                None => true,
            });
            if is_ours {
                // What cannot be removed now is removed the next time.
                let _ = shelf.remove(&name);
            }
        }
    }

    /// Takes the indexes that [`Lake::save_to`] wrote. No backend is asked, and of the indexes little more than their headers
    /// is read: whether they are whole, and of the data that the backend has, is looked at when they are first used, and
    /// those that are not are built anew.
    ///
    /// Those that cannot be used are left out, and told of, as are those of backends that the lake does not have. An index that
    /// is in memory already stays there.
    ///
    /// # Errors
    /// `Lake` where the shelf cannot be listed.
    pub fn warm_from(&self, shelf: &dyn Shelf, job: &Job) -> Result<Warmed> {
        let mut warmed = Warmed::default();
        for name in shelf.list()? {
            job.check()?;
            let Some(target) = name.strip_suffix(MANIFEST).and_then(parse_prefix) else { continue };
            let prefix = prefix(&target);
            if self.is_cached(&target) {
                warmed.loaded.push(target);
                continue;
            }
            let taken = self.backend(&target.backend).and_then(|_| {
                let bundle = LakeBundle::read_with(shelf, &prefix)?.ok_or_else(|| no_bundle(shelf))?;
                self.adopt_body(&target, bundle.body(shelf, &prefix, false)?)
            });
            match taken {
                Ok(()) => warmed.loaded.push(target),
                Err(error) => warmed.skipped.push((target, error)),
            }
        }
        Ok(warmed)
    }
}

/// What has come of warming a lake.
#[derive(Debug, Clone, Default)]
pub struct Warmed {
    /// The collections whose indexes are in memory now.
    pub loaded: Vec<Target>,
    /// Those that were left out, and why.
    pub skipped: Vec<(Target, Error)>,
}

/// Why an index that was not built here is none for a collection, where it is not.
pub(crate) fn misfit(origin: &Origin, described: &Description, params: &Params) -> Option<Error> {
    if origin.source != described.source {
        let message = format!("it is of {}, and the backend has {}", origin.source, described.source);
        return Some(mismatch(message));
    }
    let wanted = Params { metric: described.metric.unwrap_or(params.metric), ..params.clone() };
    if origin.params != wanted {
        let told = |params: &Params| {
            let originals = params.originals.map_or("none", Precision::as_str);
            format!(
                "metric={}, bits={}, originals={originals}, rotation_seed={}, rerank_factor={}",
                params.metric,
                params.bits,
                params.seed,
                params.rerank_factor.map_or_else(|| "none".to_owned(), |factor| factor.to_string())
            )
        };
        let message =
            format!("it was built with {}, and the lake has {}", told(&origin.params), told(&wanted));
        return Some(
            Error::new(ErrorKind::InvalidArgument, message).suggest("make the lake with the same settings"),
        );
    }
    None
}

fn no_bundle(shelf: &dyn Shelf) -> Error {
    Error::new(ErrorKind::CacheMiss, format!("there is no bundle in {}", shelf.place()))
        .suggest("publish one there with publish_bundle")
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn publish(body: &Body, shelf: &dyn Shelf, prefix: &str, notes: Notes) -> Result<LakeBundle> {
    let long = [&notes.pii_policy, &notes.lineage_id, &notes.memory_class];
    if long.into_iter().flatten().any(|note| note.len() > TEXT_BYTES) {
        let message = format!("what is said of a bundle must have at most {TEXT_BYTES} bytes");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let mut bundle = LakeBundle::of(body, notes)?;
    let names = write_names(&body.labels);
    bundle.names_digest = names.as_deref().map(digest).unwrap_or_default();
    let before = LakeBundle::read_with(shelf, prefix).ok().flatten();
    if let Some(index) = &body.index {
        shelf.put_index(&bundle.index_name(prefix), index)?;
    }
    if let Some(names) = names {
        shelf.put(&bundle.names_name(prefix), &names)?;
    }
    let manifest = serde_json::to_vec_pretty(&bundle)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("no manifest can be written: {error}")))?;
    shelf.put(&format!("{prefix}{MANIFEST}"), &manifest)?;
    // Of those before, the last one stays for those who are reading it.
    let kept: Vec<String> = [Some(&bundle), before.as_ref()]
        .into_iter()
        .flatten()
        .flat_map(|bundle| [bundle.index_name(prefix), bundle.names_name(prefix)])
        .collect();
    for name in shelf.list().unwrap_or_default() {
        let is_ours = name.strip_prefix(prefix).is_some_and(|name| {
            (name.starts_with("index-") && name.ends_with(".limn"))
                || (name.starts_with("names-") && name.ends_with(".bin"))
        });
        if is_ours && !kept.contains(&name) {
            // What cannot be removed now is removed the next time.
            let _ = shelf.remove(&name);
        }
    }
    Ok(bundle)
}

/// What the pieces of a collection begin with on a shelf for many.
fn prefix(target: &Target) -> String {
    format!("{}+{}+", names::encode(&target.backend), names::encode(&target.collection))
}

fn parse_prefix(prefix: &str) -> Option<Target> {
    let (backend, rest) = prefix.split_once('+')?;
    let collection = rest.strip_suffix('+')?;
    Some(Target::new(&names::decode(backend)?, &names::decode(collection)?))
}

/// The names in the order of their places; `None` where ids are numbers.
fn write_names(labels: &Labels) -> Option<Vec<u8>> {
    let Labels::Names { names, free, .. } = labels else { return None };
    let free: HashSet<u64> = free.iter().copied().collect();
    let mut bytes = Vec::new();
    for (place, name) in (0..).zip(names) {
        if free.contains(&place) {
            bytes.extend_from_slice(&FREE.to_le_bytes());
            continue;
        }
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    Some(bytes)
}

/// `None` for what [`write_names`] never wrote.
fn read_names(mut bytes: &[u8], rows: u64) -> Option<Labels> {
    let nobody: Arc<str> = "".into();
    let room = usize::try_from(rows).ok()?.min(bytes.len() / 4);
    let (mut names, mut free) = (Vec::with_capacity(room), Vec::new());
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        match u32::from_le_bytes(*length) {
            FREE => {
                free.push(names.len() as u64);
                names.push(nobody.clone());
                bytes = rest;
            }
            length => {
                let (name, rest) = rest.split_at_checked(length as usize)?;
                names.push(std::str::from_utf8(name).ok()?.into());
                bytes = rest;
            }
        }
    }
    ((names.len() - free.len()) as u64 == rows).then(|| Labels::read(names, free))
}
