//! Requests to an object store: with patience, and with errors that say what to do.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use limnion_types::{Error, ErrorKind, Job, Result};
use object_store::path::Path;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{
    GetOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutPayload,
    WriteMultipart,
};

use crate::layers::pause;
use crate::names;
use crate::object::store::Store;
use crate::runtime::{self, Pending};

/// Bytes of a part that is read or written by one request.
pub(crate) const PART: u64 = 8 << 20;
/// Parts that are on their way at once.
pub(crate) const AT_ONCE: usize = 4;
/// So many bytes are worth to begin counting failures again.
const PROGRESS: usize = 64 << 10;
/// A list may take so many times as long as another request.
const LISTS: u32 = 6;
/// Characters of what a server says in an error.
const SAID: usize = 400;

/// How long and how often something is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) attempts: u32,
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
    /// Without a byte for so long, a request has failed.
    pub(crate) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 4,
            shortest: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            silence: Duration::from_secs(20),
        }
    }
}

/// What went wrong with a request.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The object is not the one that is being read any more.
    Changed,
    /// No byte came for so long.
    Silence(Duration),
    /// The store gave less or more than it was asked for.
    Length,
    Store(object_store::Error),
}

impl From<object_store::Error> for Trouble {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    /// Whether it may be another time.
    fn passes(&self) -> bool {
        use object_store::Error as E;
        match self {
            Self::Changed => false,
            Self::Silence(_) | Self::Length => true,
            // What the server says is wrong with the question remains wrong, but for a time-out and too many questions.
            Self::Store(error @ E::Generic { .. }) => status(error)
                .is_none_or(|status| !(400..500).contains(&status) || matches!(status, 408 | 429)),
            Self::Store(error) => matches!(error, E::JoinError { .. }),
        }
    }

    /// Whether the server does not let us.
    pub(crate) fn denied(&self) -> bool {
        use object_store::Error as E;
        match self {
            Self::Store(E::PermissionDenied { .. } | E::Unauthenticated { .. }) => true,
            Self::Store(error) => matches!(status(error), Some(401 | 403)),
            _ => false,
        }
    }
}

pub(crate) type Answer<T> = std::result::Result<T, Trouble>;

/// Lets a part of an upload be sent again.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
#[derive(Debug)]
struct PartsAgain(Patience);

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
impl RetryPolicy for PartsAgain {
    // As `async_trait` writes it.
    fn retry<'a, 'b>(
        &'a self,
        context: RetryContext,
    ) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let passes = match context.failure {
                RetryFailure::Status(status) => {
                    status.is_server_error() || matches!(status.as_u16(), 408 | 429)
                }
                RetryFailure::Transport(_) => true,
                _ => false,
            };
            let failures = u32::try_from(context.attempt).unwrap_or(u32::MAX);
            if !passes || failures >= self.0.attempts {
                return false;
            }
            tokio::time::sleep(pause(self.0.shortest, self.0.longest, failures)).await;
            true
        })
    }
}

/// A store and how to speak with it. Clones speak with the same.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) name: Arc<str>,
    pub(crate) store: Arc<Store>,
    pub(crate) patience: Patience,
}

impl Access {
    /// Asks until there is an answer, as long as that makes sense.
    async fn patiently<T, F: Future<Output = Answer<T>>>(
        patience: Patience,
        mut ask: impl FnMut() -> F,
    ) -> Answer<T> {
        let mut failures = 0;
        loop {
            let answer = match tokio::time::timeout(patience.silence, ask()).await {
                Ok(answer) => answer,
                Err(_) => Err(Trouble::Silence(patience.silence)),
            };
            match answer {
                Err(trouble) if trouble.passes() && failures + 1 < patience.attempts => {
                    failures += 1;
                    tokio::time::sleep(pause(patience.shortest, patience.longest, failures)).await;
                }
                answer => return answer,
            }
        }
    }

    /// Does something with the store on the runtime while this thread waits.
    fn ask<T: Send + 'static, F: Future<Output = Answer<T>> + Send + 'static>(
        &self,
        what: &str,
        ask: impl FnOnce(Arc<dyn ObjectStore>, Patience) -> F,
    ) -> Result<T> {
        self.begin(ask)?.wait(None)?.map_err(|trouble| self.error(what, &trouble))
    }

    fn begin<T: Send + 'static, F: Future<Output = Answer<T>> + Send + 'static>(
        &self,
        ask: impl FnOnce(Arc<dyn ObjectStore>, Patience) -> F,
    ) -> Result<Pending<Answer<T>>> {
        runtime::spawn(ask(self.store.get()?, self.patience))
    }

    /// What an object is now; `None` where there is none.
    pub(crate) fn head(&self, key: &Path, job: Option<&Job>) -> Result<Option<ObjectMeta>> {
        match self.heads(std::slice::from_ref(key), job)?.pop() {
            Some(found) => found.map_err(|trouble| self.error(key.as_ref(), &trouble)),
            None => Ok(None),
        }
    }

    /// What several objects are, asked for at once.
    pub(crate) fn heads(&self, keys: &[Path], job: Option<&Job>) -> Result<Vec<Answer<Option<ObjectMeta>>>> {
        let asked: Result<Vec<_>> = keys
            .iter()
            .map(|key| {
                let key = key.clone();
                self.begin(move |store, patience| async move {
                    Self::patiently(patience, || async {
                        match store.head(&key).await {
                            Ok(meta) => Ok(Some(meta)),
                            Err(object_store::Error::NotFound { .. }) => Ok(None),
                            Err(error) => Err(error.into()),
                        }
                    })
                    .await
                })
            })
            .collect();
        asked?.into_iter().map(|pending| pending.wait(job)).collect()
    }

    /// What lies right in a folder.
    pub(crate) fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        let what = format!("the objects in {folder:?}", folder = folder.as_ref());
        let folder = folder.clone();
        self.ask(&what, move |store, patience| async move {
            let prefix = (!folder.as_ref().is_empty()).then_some(&folder);
            // A thousand at a time: many take several requests.
            let patience = Patience { silence: patience.silence.saturating_mul(LISTS), ..patience };
            Self::patiently(patience, || async { Ok(store.list_with_delimiter(prefix).await?.objects) }).await
        })
    }

    /// Puts an object where it is seen whole or not at all.
    pub(crate) fn put(&self, key: &Path, bytes: Vec<u8>) -> Result<()> {
        let place = key.clone();
        let whole = bytes.len() as u64 <= 2 * PART;
        self.ask(key.as_ref(), move |store, patience| async move {
            let payload = PutPayload::from(bytes);
            if !whole {
                match Self::put_parts(&*store, &place, &payload, patience).await {
                    Err(Trouble::Store(
                        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. },
                    )) => {}
                    done => return done,
                }
            }
            // Each 8 MiB may take as long as a small request.
            let times = 1 + u32::try_from(payload.content_length() as u64 / PART).unwrap_or(u32::MAX - 1);
            let patience = Patience { silence: patience.silence.saturating_mul(times), ..patience };
            Self::patiently(patience, || async {
                store.put(&place, payload.clone()).await?;
                Ok(())
            })
            .await
        })
    }

    async fn put_parts(
        store: &dyn ObjectStore,
        key: &Path,
        payload: &PutPayload,
        patience: Patience,
    ) -> Answer<()> {
        let upload = Self::patiently(patience, || async {
            let options = PutMultipartOptions::default();
            #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
            let options = options.with_retry_policy(Arc::new(PartsAgain(patience)));
            Ok::<Box<dyn MultipartUpload>, Trouble>(store.put_multipart_opts(key, options).await?)
        })
        .await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART as usize);
        let silence = patience.silence.saturating_mul(AT_ONCE as u32);
        if let Err(trouble) = Self::put_all(&mut upload, payload, silence).await {
            // What cannot be taken back is left to the rules of the bucket.
            let _ = tokio::time::timeout(patience.silence, upload.abort()).await;
            return Err(trouble);
        }
        match tokio::time::timeout(silence, upload.finish()).await {
            Ok(finished) => finished.map(|_| ()).map_err(Trouble::from),
            Err(_) => Err(Trouble::Silence(silence)),
        }
    }

    async fn put_all(upload: &mut WriteMultipart, payload: &PutPayload, silence: Duration) -> Answer<()> {
        let silent = |_| Trouble::Silence(silence);
        for bytes in payload {
            let mut rest = bytes.clone();
            while !rest.is_empty() {
                tokio::time::timeout(silence, upload.wait_for_capacity(AT_ONCE)).await.map_err(silent)??;
                upload.put(rest.split_to(rest.len().min(PART as usize)));
            }
        }
        Ok(tokio::time::timeout(silence, upload.wait_for_capacity(0)).await.map_err(silent)??)
    }

    /// Removes an object, and says whether it was there.
    pub(crate) fn delete(&self, key: &Path) -> Result<bool> {
        if self.head(key, None)?.is_none() {
            return Ok(false);
        }
        let place = key.clone();
        self.ask(key.as_ref(), move |store, patience| async move {
            Self::patiently(patience, || async {
                match store.delete(&place).await {
                    Ok(()) => Ok(true),
                    Err(object_store::Error::NotFound { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            })
            .await
        })
    }

    /// Begins to read a range of an object as it was when `object` was made.
    pub(crate) fn fetch(
        &self,
        object: &Arc<ObjectMeta>,
        range: Range<u64>,
    ) -> Result<Pending<Answer<Vec<u8>>>> {
        let object = object.clone();
        self.begin(move |store, patience| async move { fetch(&*store, &object, range, patience).await })
    }

    /// Reads a range in parts, of which several are on their way at once.
    pub(crate) fn read(
        &self,
        object: &Arc<ObjectMeta>,
        range: &Range<u64>,
        job: Option<&Job>,
    ) -> Result<Answer<Vec<u8>>> {
        let (mut bytes, mut coming, mut next) = (Vec::new(), VecDeque::new(), range.start);
        loop {
            while next < range.end && coming.len() < AT_ONCE {
                let end = range.end.min(next + PART);
                coming.push_back(self.fetch(object, next..end)?);
                next = end;
            }
            let Some(pending) = coming.pop_front() else { return Ok(Ok(bytes)) };
            match pending.wait(job)? {
                Ok(here) if bytes.is_empty() => bytes = here,
                Ok(here) => bytes.extend_from_slice(&here),
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
    }

    /// An error of this backend about an object, in words.
    pub(crate) fn error(&self, what: &str, trouble: &Trouble) -> Error {
        use object_store::Error as E;
        let failed = |message: String| names::failed(&self.name, self.store.hide(&message));
        match trouble {
            Trouble::Changed => failed(format!("{what:?} has changed while it was read")).passing(),
            Trouble::Silence(time) => failed(format!("{what}: no answer for {time:?}")),
            Trouble::Length => {
                failed(format!("{what}: the server sent another number of bytes than asked for"))
            }
            Trouble::Store(error) => {
                let denied = if trouble.denied() { "access denied: " } else { "" };
                let told = failed(format!("{what}: {denied}{}", said(error)));
                if trouble.denied() {
                    told.suggest(self.store.advice())
                } else if matches!(error, E::NotFound { .. }) || status(error) == Some(404) {
                    told.suggest("look at the address: is there such a bucket?")
                } else {
                    told
                }
            }
        }
    }
}

/// The next of a stream.
async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *stream).poll_next(context)).await
}

/// What tells one state of an object from another: its ETag, or else its time and size; and its version, where it has one.
pub(crate) fn stamp(meta: &ObjectMeta) -> String {
    let stamp = match &meta.e_tag {
        Some(tag) => tag.clone(),
        None => {
            let time = meta.last_modified;
            format!("{}.{:09}-{}", time.timestamp(), time.timestamp_subsec_nanos(), meta.size)
        }
    };
    match &meta.version {
        Some(version) => format!("{stamp}+{version}"),
        None => stamp,
    }
}

/// Reads a range. What breaks off goes on where it ended, and each answer has to be of the same object.
async fn fetch(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    range: Range<u64>,
    patience: Patience,
) -> Answer<Vec<u8>> {
    let wanted = usize::try_from(range.end.saturating_sub(range.start)).map_err(|_| Trouble::Length)?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut failures = 0;
    loop {
        let had = bytes.len();
        let trouble = match read_on(store, object, &range, wanted, &mut bytes, patience).await {
            Ok(()) => return Ok(bytes),
            Err(trouble) => trouble,
        };
        if bytes.len() - had >= PROGRESS {
            failures = 0;
        }
        failures += 1;
        if !trouble.passes() || failures >= patience.attempts {
            return Err(trouble);
        }
        tokio::time::sleep(pause(patience.shortest, patience.longest, failures)).await;
    }
}

async fn read_on(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    range: &Range<u64>,
    wanted: usize,
    bytes: &mut Vec<u8>,
    patience: Patience,
) -> Answer<()> {
    // A weak ETag matches nothing, says HTTP; what it says is compared below.
    let strong = object.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
    let rest = range.start + bytes.len() as u64..range.end;
    let options = GetOptions { range: Some(rest.into()), if_match: strong, ..GetOptions::default() };
    let silent = |_| Trouble::Silence(patience.silence);
    let asked = tokio::time::timeout(patience.silence, store.get_opts(&object.location, options));
    let answer = match asked.await.map_err(silent)? {
        Ok(answer) => answer,
        Err(object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }) => {
            return Err(Trouble::Changed);
        }
        Err(error) => return Err(error.into()),
    };
    if stamp(&answer.meta) != stamp(object) || answer.meta.size != object.size {
        return Err(Trouble::Changed);
    }
    let mut stream = answer.into_stream();
    bytes.reserve_exact((wanted - bytes.len()).min(PART as usize));
    while bytes.len() < wanted {
        match tokio::time::timeout(patience.silence, next(&mut stream)).await.map_err(silent)? {
            Some(Ok(more)) if more.len() <= wanted - bytes.len() => bytes.extend_from_slice(&more),
            Some(Ok(_)) | None => return Err(Trouble::Length),
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What a store says, in one line that is not too long.
fn said(error: &object_store::Error) -> String {
    use object_store::Error as E;
    let whole = match error {
        E::Generic { source, .. } => chain(&**source),
        E::NotFound { source, .. } => format!("not found: {}", chain(&**source)),
        E::PermissionDenied { source, .. } | E::Unauthenticated { source, .. } => chain(&**source),
        other => chain(other),
    };
    let line = whole.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SAID) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// What HTTP says of an answer. The store tells it in words only.
fn status(error: &object_store::Error) -> Option<u16> {
    let told = chain(error);
    let (_, behind) = told.split_once("status code: ")?;
    behind.get(..3)?.parse().ok()
}

/// An error and what lies below it, as far as it does not say that itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let more = error.to_string();
        if !told.contains(&more) {
            told = format!("{told}: {more}");
        }
        below = error.source();
    }
    told
}

/// Bytes that are not those of the object.
pub(crate) fn outside(range: &Range<u64>, length: u64) -> Error {
    Error::new(
        ErrorKind::Backend,
        format!("bytes {} to {} were asked for, and there are {length}", range.start, range.end),
    )
}
