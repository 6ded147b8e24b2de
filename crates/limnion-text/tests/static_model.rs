//! The built-in model gives its reference vectors; hostile models and texts give errors or vectors, and nothing else.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use limnion_text::StaticModel;
use limnion_types::{ErrorKind, Job};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn builtin() -> &'static StaticModel {
    static MODEL: OnceLock<StaticModel> = OnceLock::new();
    MODEL.get_or_init(|| {
        StaticModel::from_folder(project().join("python/limnion/models/limnion-static-256")).unwrap()
    })
}

fn reference_texts() -> Vec<String> {
    let text = std::fs::read_to_string(project().join("tests/data/embedder/reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn embed(texts: &[impl AsRef<str> + Sync]) -> Vec<f32> {
    builtin().embed_batch(texts, &Job::new()).unwrap()
}

#[test]
fn the_reference_vectors_come_out() {
    let file = std::fs::read(project().join("tests/data/embedder/reference.npy")).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    let expected: Vec<f32> =
        file[header..].as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let vectors = embed(&reference_texts());
    assert_eq!(vectors.len(), expected.len());
    for (row, (vector, expected)) in vectors.chunks(256).zip(expected.chunks(256)).enumerate() {
        for (value, expected) in vector.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "row {row}: {value} instead of {expected}");
        }
    }
}

#[test]
fn vectors_are_the_same_alone_and_in_a_batch_with_any_number_of_threads() {
    let texts: Vec<String> =
        (0..1000).map(|i| format!("{} ïtem {i} of the Lake{i}", reference_texts()[i % 5])).collect();
    let alone: Vec<f32> = texts.iter().flat_map(|text| builtin().embed(text).unwrap()).collect();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(|| embed(&texts)) == alone, "{threads} threads");
    }
}

#[test]
fn vectors_have_unit_length_or_are_zero() {
    for text in ["lake", "a b c d e f g", &"lake ".repeat(1000)] {
        let norm: f64 = embed(&[text]).iter().map(|&value| f64::from(value).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-6, "{text:.20}: {norm}");
    }
    for text in ["", " \n", "\u{0}\u{1}", "\u{200b}", "[UNK]"] {
        assert!(embed(&[text]).iter().all(|&value| value == 0.0), "{text:?}");
    }
}

#[test]
fn tokens_after_the_512th_do_not_count() {
    let short = "lake water ".repeat(256);
    let long = format!("{short} mountain");
    assert_eq!(embed(&[&short]), embed(&[long]));
    assert_ne!(embed(&[&short]), embed(&[short.replacen("lake", "mountain", 1)]));
}

#[test]
fn huge_texts_take_no_longer_than_their_first_tokens() {
    let start = std::time::Instant::now();
    for text in ["a".repeat(50 << 20), "湖".repeat(20 << 20), "é".repeat(20 << 20), "ab ".repeat(20 << 20)]
    {
        embed(&[text]);
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    // The 64 KiB of a stretch that are read hold more than the tokens that count.
    assert_eq!(embed(&["湖".repeat(1 << 20)]), embed(&["湖".repeat(512)]));
}

#[test]
fn a_cancelled_job_stops_and_a_finished_one_has_counted_every_text() {
    let texts = vec!["a small lake"; 1000];
    let job = Job::new();
    builtin().embed_batch(&texts, &job).unwrap();
    assert_eq!(job.done(), 1000);
    let job = Job::new();
    job.cancel();
    assert_eq!(builtin().embed_batch(&texts, &job).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(job.done(), 0);
}

#[test]
fn no_texts_give_no_vectors() {
    assert!(embed(&[""; 0]).is_empty());
}

/// Element type, shape and bytes.
type Tensor<'a> = (Dtype, &'a [usize], &'a [u8]);

/// A model file of two tensors, which can be broken in every way.
fn small_model(embeddings: Tensor<'_>, scales: Tensor<'_>) -> Vec<u8> {
    let tensors = [("embeddings", embeddings), ("scales", scales)]
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(dtype, shape.to_vec(), data).unwrap()));
    safetensors::serialize(tensors, None).unwrap()
}

const EMBEDDINGS: Tensor<'_> = (Dtype::I8, &[3, 2], &[0, 0, 3, 4, 255, 0]);
const SCALES: Tensor<'_> = (Dtype::F16, &[3], &[0, 0x3c, 0, 0x3c, 0, 0x3c]);

fn small_tokenizer() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "[UNK]", "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false}],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "lake": 1, "##s": 2}},
    })
}

#[test]
fn a_model_of_three_tokens_embeds() {
    let model =
        StaticModel::from_bytes(&small_model(EMBEDDINGS, SCALES), small_tokenizer().to_string().as_bytes())
            .unwrap();
    assert_eq!(model.dim(), 2);
    assert_eq!(model.embed("Lake").unwrap(), [0.6, 0.8]);
    assert_eq!(model.embed("lakes").unwrap(), embed_by_hand(3.0 - 1.0, 4.0));
    assert_eq!(model.embed("mountain").unwrap(), [0.0, 0.0]);
}

fn embed_by_hand(x: f64, y: f64) -> [f32; 2] {
    let norm = x.hypot(y);
    [(x / norm) as f32, (y / norm) as f32]
}

#[test]
fn broken_tables_are_refused() {
    let tokenizer = small_tokenizer().to_string();
    let infinite = (Dtype::F16, &[3][..], &[0, 0x3c, 0, 0x7c, 0, 0x3c][..]);
    for (model, expected) in [
        (small_model((Dtype::U8, EMBEDDINGS.1, EMBEDDINGS.2), SCALES), "embeddings must be I8"),
        (small_model((Dtype::I8, &[6], EMBEDDINGS.2), SCALES), "shape [tokens, dim]"),
        (small_model((Dtype::I8, &[0, 2], &[]), SCALES), "shape [tokens, dim]"),
        (small_model((Dtype::I8, &[3, 0], &[]), SCALES), "shape [tokens, dim]"),
        (small_model((Dtype::I8, &[2, 3], EMBEDDINGS.2), SCALES), "scales must have the shape [2]"),
        (
            small_model((Dtype::I8, &[2, 2], &[1; 4]), (Dtype::F16, &[2], &[0; 4])),
            "tokenizer.json yields token 2",
        ),
        (small_model(EMBEDDINGS, (Dtype::I16, SCALES.1, SCALES.2)), "scales must be F16"),
        (small_model(EMBEDDINGS, infinite), "scale of token 1 is not finite"),
        (Vec::new(), "model.safetensors"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}".to_vec(), "model.safetensors"),
    ] {
        let error = StaticModel::from_bytes(&model, tokenizer.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Embed);
        assert!(error.message().contains(expected), "{error}");
    }
}

#[test]
fn broken_tokenizers_are_refused() {
    let model = small_model(EMBEDDINGS, SCALES);
    let cases: [(&str, Value, &str); 14] = [
        ("/model/vocab", json!({"lake": 1}), "lacks the unknown token"),
        ("/model/vocab", json!({"[UNK]": 0, "lake": 4_000_000_000_u32}), "yields token 4000000000"),
        ("/model/vocab", json!({"[UNK]": -1}), "tokenizer.json"),
        ("/model/max_input_chars_per_word", json!(1_000_000), "at most 128"),
        ("/model/type", json!("BPE"), "tokenizer.json"),
        ("/normalizer/lowercase", json!(false), "lowercases"),
        ("/normalizer", Value::Null, "lowercases"),
        ("/pre_tokenizer", Value::Null, "BertPreTokenizer"),
        ("/pre_tokenizer/type", json!("Whitespace"), "tokenizer.json"),
        ("/added_tokens/0/content", json!("UNK"), "a mark such as [PAD]"),
        ("/added_tokens/0/content", json!("[UN K]"), "a mark such as [PAD]"),
        ("/added_tokens/0/normalized", json!(true), "a mark such as [PAD]"),
        ("/added_tokens/0/single_word", json!(true), "a mark such as [PAD]"),
        ("/version", json!("9.9"), "tokenizer.json"),
    ];
    for (place, value, expected) in cases {
        let mut tokenizer = small_tokenizer();
        *tokenizer.pointer_mut(place).unwrap() = value;
        let error = StaticModel::from_bytes(&model, tokenizer.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Embed);
        assert!(error.message().contains(expected), "{place}: {error}");
    }
}

#[test]
fn a_missing_folder_is_named() {
    let error = StaticModel::from_folder("no/such/model").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Embed);
    assert!(error.message().contains("no/such/model"), "{error}");
    assert!(error.suggestion().is_some());
}

proptest! {
    #[test]
    fn damaged_files_never_panic(place in 0.0..1.0f64, byte: u8, cut in 0.0..1.0f64) {
        let at = |bytes: &[u8], share: f64| (bytes.len() as f64 * share) as usize;
        let model = small_model(EMBEDDINGS, SCALES);
        let tokenizer = small_tokenizer().to_string().into_bytes();
        for (model, tokenizer) in [
            (damaged(&model, at(&model, place), byte), tokenizer.clone()),
            (model[..at(&model, cut)].to_vec(), tokenizer.clone()),
            (model.clone(), damaged(&tokenizer, at(&tokenizer, place), byte)),
            (model.clone(), tokenizer[..at(&tokenizer, cut)].to_vec()),
        ] {
            match StaticModel::from_bytes(&model, &tokenizer) {
                Ok(model) => prop_assert!(model.embed("Lakes [UNK] ...").unwrap().iter().all(|value| value.is_finite())),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Embed),
            }
        }
    }
}

fn damaged(bytes: &[u8], place: usize, byte: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[place] = byte;
    bytes
}
