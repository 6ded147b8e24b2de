//! A server that speaks S3 over HTTP on loopback and checks signatures, with buckets in memory and faults on demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use object_store::ObjectStoreExt as _;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3ServiceBuilder, SharedS3Service};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

pub(crate) const KEY: &str = "the-key-id";
pub(crate) const SECRET: &str = "the-secret-key";

/// Bytes and ETag of each key.
type Bucket = BTreeMap<String, (Vec<u8>, String)>;
type Hook = Box<dyn Fn(&Shared) + Send>;

#[derive(Default)]
pub(crate) struct Shared {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    uploads: Mutex<BTreeMap<String, BTreeMap<i32, Vec<u8>>>>,
    log: Mutex<Vec<String>>,
    changes: AtomicUsize,
    /// So many requests are answered with 503.
    pub(crate) unavailable: AtomicUsize,
    /// So many parts of uploads are answered with 503.
    pub(crate) fail_parts: AtomicUsize,
    /// So many bodies break off half through.
    pub(crate) cut: AtomicUsize,
    /// So many requests are never answered.
    pub(crate) hang: AtomicUsize,
    /// What happens before the next reading of a range that does not begin at 0.
    midway: Mutex<Option<Hook>>,
}

fn one_less(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
}

impl Shared {
    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: Vec<u8>) {
        let tag = format!("\"change-{}\"", self.changes.fetch_add(1, Ordering::SeqCst));
        let mut buckets = self.buckets.lock().unwrap();
        buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), (bytes, tag));
    }

    pub(crate) fn remove(&self, bucket: &str, key: &str) {
        self.buckets.lock().unwrap().get_mut(bucket).unwrap().remove(key);
    }

    pub(crate) fn keys(&self, bucket: &str) -> Vec<String> {
        self.buckets.lock().unwrap()[bucket].keys().cloned().collect()
    }

    pub(crate) fn midway(&self, hook: impl Fn(&Shared) + Send + 'static) {
        *self.midway.lock().unwrap() = Some(Box::new(hook));
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    async fn enter(&self, what: String) -> S3Result<()> {
        self.log.lock().unwrap().push(what);
        if one_less(&self.hang) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if one_less(&self.unavailable) {
            return Err(s3_error!(ServiceUnavailable));
        }
        Ok(())
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<(Vec<u8>, String)> {
        let buckets = self.buckets.lock().unwrap();
        let bucket = buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        bucket.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }
}

#[derive(Clone)]
struct Service(Arc<Shared>);

fn modified() -> Option<Timestamp> {
    Some(Timestamp::from(SystemTime::UNIX_EPOCH))
}

async fn whole(body: Option<StreamingBlob>) -> Vec<u8> {
    use futures_util::StreamExt as _;
    let (mut bytes, mut body) = (Vec::new(), body.unwrap());
    while let Some(more) = body.next().await {
        bytes.extend_from_slice(&more.unwrap());
    }
    bytes
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let HeadObjectInput { bucket, key, .. } = request.input;
        self.0.enter(format!("HEAD {key}")).await?;
        let (bytes, tag) = self.0.object(&bucket, &key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(bytes.len() as i64),
            e_tag: Some(tag),
            last_modified: modified(),
            ..HeadObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { bucket, key, range, if_match, .. } = request.input;
        let length = self.0.object(&bucket, &key).map_or(0, |(bytes, _)| bytes.len() as u64);
        let wanted = range.map_or(Ok(0..length), |range| range.check(length));
        self.0.enter(format!("GET {key} {wanted:?}")).await?;
        if wanted.as_ref().is_ok_and(|wanted| wanted.start > 0) {
            let hook = self.0.midway.lock().unwrap().take();
            if let Some(hook) = hook {
                hook(&self.0);
            }
        }
        let (bytes, tag) = self.0.object(&bucket, &key)?;
        if if_match.is_some_and(|wanted| wanted != tag) {
            return Err(s3_error!(PreconditionFailed));
        }
        let wanted = wanted?;
        let length = bytes.len();
        let part = bytes[wanted.start as usize..wanted.end as usize].to_vec();
        let sent = part.len() as i64;
        let mut pieces: Vec<std::io::Result<Vec<u8>>> =
            part.chunks(64 << 10).map(|piece| Ok(piece.to_vec())).collect();
        if pieces.len() > 1 && one_less(&self.0.cut) {
            pieces.truncate(pieces.len() / 2);
            pieces.push(Err(std::io::Error::other("the cable was pulled")));
        }
        let stream = futures_util::stream::iter(pieces.into_iter().map(|piece| piece.map(Into::into)));
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap::<_, std::io::Error>(stream)),
            content_length: Some(sent),
            content_range: range.map(|_| format!("bytes {}-{}/{length}", wanted.start, wanted.end - 1)),
            e_tag: Some(tag),
            last_modified: modified(),
            ..GetObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let ListObjectsV2Input { bucket, prefix, delimiter, continuation_token, .. } = request.input;
        let prefix = prefix.unwrap_or_default();
        self.0.enter(format!("LIST {prefix}")).await?;
        let buckets = self.0.buckets.lock().unwrap();
        let bucket = buckets.get(&bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let (mut contents, mut folders, mut token) = (Vec::new(), Vec::new(), None);
        for (key, (bytes, tag)) in bucket {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            if continuation_token.as_ref().is_some_and(|last| key <= last) {
                continue;
            }
            if delimiter.is_some() && rest.contains('/') {
                let folder = format!("{prefix}{}/", rest.split('/').next().unwrap());
                folders.push(CommonPrefix { prefix: Some(folder) });
                folders.dedup();
                continue;
            }
            contents.push(Object {
                key: Some(key.clone()),
                size: Some(bytes.len() as i64),
                e_tag: Some(tag.clone()),
                last_modified: modified(),
                ..Object::default()
            });
            // Pages are small, so that there are some.
            if contents.len() == 3 {
                token = Some(key.clone());
                break;
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: Some(contents.len() as i32),
            contents: Some(contents),
            common_prefixes: Some(folders),
            is_truncated: Some(token.is_some()),
            next_continuation_token: token,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let PutObjectInput { bucket, key, body, .. } = request.input;
        self.0.enter(format!("PUT {key}")).await?;
        let bytes = whole(body).await;
        self.0.put(&bucket, &key, bytes);
        let (_, tag) = self.0.object(&bucket, &key)?;
        let output = PutObjectOutput { e_tag: Some(tag), ..PutObjectOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, .. } = request.input;
        self.0.enter(format!("DELETE {key}")).await?;
        self.0.remove(&bucket, &key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = request.input;
        let mut deleted = Vec::new();
        for object in delete.objects {
            self.0.enter(format!("DELETE {}", object.key)).await?;
            self.0.remove(&bucket, &object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        let output = DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let CreateMultipartUploadInput { bucket, key, .. } = request.input;
        self.0.enter(format!("BEGIN {key}")).await?;
        let id = format!("upload-{}", self.0.changes.fetch_add(1, Ordering::SeqCst));
        self.0.uploads.lock().unwrap().insert(id.clone(), BTreeMap::new());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let UploadPartInput { part_number, upload_id, body, .. } = request.input;
        self.0.enter(format!("PART {part_number}")).await?;
        if one_less(&self.0.fail_parts) {
            return Err(s3_error!(SlowDown));
        }
        let bytes = whole(body).await;
        self.0.uploads.lock().unwrap().get_mut(&upload_id).unwrap().insert(part_number, bytes);
        let e_tag = Some(format!("\"part-{part_number}\""));
        Ok(S3Response::new(UploadPartOutput { e_tag, ..UploadPartOutput::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let CompleteMultipartUploadInput { bucket, key, upload_id, .. } = request.input;
        self.0.enter(format!("END {key}")).await?;
        let parts = self.0.uploads.lock().unwrap().remove(&upload_id).unwrap();
        self.0.put(&bucket, &key, parts.into_values().flatten().collect());
        let (_, tag) = self.0.object(&bucket, &key)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            e_tag: Some(tag),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.0.enter("ABORT".to_owned()).await?;
        self.0.uploads.lock().unwrap().remove(&request.input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    service: SharedS3Service,
    runtime: Runtime,
    running: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let mut builder = S3ServiceBuilder::new(Service(shared.clone()));
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build().into_shared();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Self { shared, address, service, runtime, running: None };
        server.start();
        server
    }

    /// Listens, after a stop where it did before.
    pub(crate) fn start(&mut self) {
        let listener = self.runtime.block_on(async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        self.address = listener.local_addr().unwrap();
        let service = self.service.clone();
        self.running = Some(self.runtime.spawn(async move {
            // Connections end together with the one who accepts them.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                connections.spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        }));
    }

    /// Breaks all connections and listens no more.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = self.runtime.block_on(running);
        }
    }

    pub(crate) fn settings(&self, secret: &str) -> Vec<(String, String)> {
        let settings = [
            ("endpoint", format!("http://{}", self.address)),
            ("allow_http", "true".to_owned()),
            ("region", "us-east-1".to_owned()),
            ("access_key_id", KEY.to_owned()),
            ("secret_access_key", secret.to_owned()),
        ];
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Puts something into a store by its own means.
pub(crate) fn put(store: &dyn object_store::ObjectStore, key: &str, bytes: Vec<u8>) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let key = object_store::path::Path::parse(key).unwrap();
    runtime.block_on(store.put(&key, bytes.into())).unwrap();
}
