//! The static model: a table with one vector a token.

use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use half::f16;
use limnion_types::{Error, ErrorKind, Job, Result};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use crate::wordpiece::{Memo, WordPiece};

/// The tokens of a text that count.
const MAX_TOKENS: usize = 512;
/// The texts that a thread takes at a time.
const TEXTS_A_STEP: usize = 64;

const MODEL_FILE: &str = "model.safetensors";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// A static embedder: the vector of a text is the mean of its tokens' vectors, scaled to unit length.
///
/// The first 512 tokens of a text count. A text without a known token has the zero vector. A stretch of more than
/// 64 KiB without an ASCII space or punctuation character is read up to there.
///
/// A model is two files. `model.safetensors` holds `embeddings` (int8, tokens × dim) and `scales` (float16, one a
/// token): the vector of token t is `embeddings[t] * scales[t]`. `tokenizer.json` is an uncased WordPiece tokenizer
/// in the format of the `tokenizers` crate.
///
/// The same text has the same vector, to the bit, on every CPU, in a batch or alone, with any number of threads.
///
/// ```no_run
/// use limnion_text::StaticModel;
/// use limnion_types::Job;
///
/// let model = StaticModel::from_folder("limnion-static-256")?;
/// let rows = model.embed_batch(&["a small lake", "ein kleiner See"], &Job::new())?;
/// let cosine: f32 = rows[..256].iter().zip(&rows[256..]).map(|(one, other)| one * other).sum();
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug)]
pub struct StaticModel {
    wordpiece: WordPiece,
    embeddings: Vec<i8>,
    scales: Vec<f32>,
    dim: usize,
}

impl StaticModel {
    /// The model of a folder that holds `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Embed`] where a file is missing, and as [`StaticModel::from_bytes`].
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.as_ref().join(name);
            std::fs::read(&path).map_err(|error| {
                Error::new(ErrorKind::Embed, format!("cannot read {}: {error}", path.display()))
                    .suggest(format!("a model is a folder with {MODEL_FILE} and {TOKENIZER_FILE}"))
            })
        };
        Self::from_bytes(&read(MODEL_FILE)?, &read(TOKENIZER_FILE)?)
    }

    /// The model of the contents of `model.safetensors` and `tokenizer.json`. Keeps as much memory as `model` takes,
    /// and a few times `tokenizer`; 20 ms for 30,000 tokens.
    ///
    /// # Errors
    /// [`ErrorKind::Embed`] where one of the two is damaged or of another kind, or they do not fit each other.
    pub fn from_bytes(model: &[u8], tokenizer: &[u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(model).map_err(broken)?;
        let (embeddings, shape) = tensor(&tensors, "embeddings", Dtype::I8)?;
        let (scales, rows) = tensor(&tensors, "scales", Dtype::F16)?;
        let (tokens, dim) = match *shape.as_slice() {
            [tokens, dim] if tokens > 0 && dim > 0 => (tokens, dim),
            _ => return Err(broken(format!("embeddings must have the shape [tokens, dim], got {shape:?}"))),
        };
        if rows != [tokens] {
            return Err(broken(format!("scales must have the shape [{tokens}], got {rows:?}")));
        }
        let scales: Vec<f32> =
            scales.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect();
        if let Some(token) = scales.iter().position(|scale| !scale.is_finite()) {
            return Err(broken(format!("the scale of token {token} is not finite")));
        }
        let wordpiece = WordPiece::from_bytes(tokenizer)?;
        if wordpiece.max_id() as usize >= tokens {
            let id = wordpiece.max_id();
            return Err(broken(format!("it has {tokens} tokens, but {TOKENIZER_FILE} yields token {id}")));
        }
        let embeddings = embeddings.iter().map(|byte| byte.cast_signed()).collect();
        Ok(Self { wordpiece, embeddings, scales, dim })
    }

    /// The length of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The vector of one text: `dim` numbers, of unit length or all zero. A question takes some microseconds.
    ///
    /// # Errors
    /// [`ErrorKind::Embed`] where the tokenizer gives up on the text.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>> {
        let mut vector = vec![0.0; self.dim];
        self.embed_into(text, &mut Worker::default(), &mut vector, &Job::new())?;
        Ok(vector)
    }

    /// The vectors of many texts, one after the other: `texts.len() * dim` numbers.
    ///
    /// Runs on the current rayon pool, and advances `job` by one a text. A thread embeds tens of thousands of passages
    /// of 100 words a second.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] within milliseconds after the job was cancelled, and as [`StaticModel::embed`].
    pub fn embed_batch<T: AsRef<str> + Sync>(&self, texts: &[T], job: &Job) -> Result<Vec<f32>> {
        let mut vectors = vec![0.0; texts.len() * self.dim];
        // As many as threads have been at work at the same time.
        let idle = Mutex::new(Vec::<Worker>::new());
        vectors.par_chunks_mut(TEXTS_A_STEP * self.dim).zip(texts.par_chunks(TEXTS_A_STEP)).try_for_each(
            |(vectors, texts)| {
                let mut worker =
                    idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
                for (vector, text) in vectors.chunks_exact_mut(self.dim).zip(texts) {
                    self.embed_into(text.as_ref(), &mut worker, vector, job)?;
                    job.advance(1);
                }
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                Ok(())
            },
        )?;
        Ok(vectors)
    }

    /// `vector` holds `dim` zeros, and then the vector of `text`.
    fn embed_into(&self, text: &str, worker: &mut Worker, vector: &mut [f32], job: &Job) -> Result<()> {
        self.wordpiece.encode(text, MAX_TOKENS, &mut worker.memo, &mut worker.ids, job)?;
        for &id in &worker.ids {
            let (scale, row) = self.token(id);
            for (sum, &value) in vector.iter_mut().zip(row) {
                *sum += f32::from(value) * scale;
            }
        }
        // The sum points where the mean points.
        let norm = vector.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
        if norm > 0.0 {
            for value in vector {
                *value = (f64::from(*value) / norm) as f32;
            }
        }
        Ok(())
    }

    fn token(&self, id: u32) -> (f32, &[i8]) {
        let id = id as usize;
        let scale = self.scales.get(id).copied().unwrap_or(0.0);
        (scale, self.embeddings.get(id * self.dim..(id + 1) * self.dim).unwrap_or_default())
    }
}

/// What a thread keeps from text to text.
#[derive(Default)]
struct Worker {
    memo: Memo,
    ids: Vec<u32>,
}

/// The bytes and the shape of a tensor.
fn tensor<'a>(tensors: &SafeTensors<'a>, name: &str, dtype: Dtype) -> Result<(&'a [u8], Vec<usize>)> {
    let found = tensors.tensor(name).map_err(broken)?;
    if found.dtype() != dtype {
        return Err(broken(format!("{name} must be {dtype:?}, got {:?}", found.dtype())));
    }
    Ok((found.data(), found.shape().to_vec()))
}

fn broken(message: impl Display) -> Error {
    Error::new(ErrorKind::Embed, format!("{MODEL_FILE}: {message}"))
}
