//! Passages of 100 words a second, on one thread and on all.
//!
//! The text is made up: words of the built-in vocabulary by Zipf's law, with capitals, punctuation, and one word in ten
//! that is made of two and so is not in the vocabulary.
#![expect(clippy::unwrap_used, reason = "a bench has no callers")]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use limnion_text::StaticModel;
use limnion_types::Job;

const PASSAGES: usize = 4000;
const WORDS: usize = 100;

/// A linear congruential generator, in [0, 1).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn passages(vocabulary: &[String]) -> Vec<String> {
    let mut random = Random(42);
    (0..PASSAGES)
        .map(|_| {
            let mut passage = String::new();
            for _ in 0..WORDS {
                // A rank drawn uniformly in its logarithm is drawn by Zipf's law.
                let mut word =
                    || vocabulary[(vocabulary.len() as f64).powf(random.next()) as usize - 1].clone();
                let (one, other) = (word(), word());
                let word = match random.next() {
                    0.0..0.1 => one + &other,
                    0.1..0.2 => one[..1].to_uppercase() + &one[1..],
                    0.2..0.3 => one + [",", ".", "()", "\n"][(random.next() * 4.0) as usize],
                    _ => one,
                };
                passage.push_str(&word);
                passage.push(' ');
            }
            passage
        })
        .collect()
}

fn embed(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/limnion/models/limnion-static-256");
    let model = StaticModel::from_folder(&folder).unwrap();
    let tokenizer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    let mut vocabulary: Vec<(String, u64)> = tokenizer["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(word, _)| word.bytes().all(|byte| byte.is_ascii_lowercase()))
        .map(|(word, id)| (word.clone(), id.as_u64().unwrap()))
        .collect();
    vocabulary.sort_by_key(|(_, id)| *id); // the commonest words have the smallest ids
    let vocabulary: Vec<String> = vocabulary.into_iter().map(|(word, _)| word).collect();
    let passages = passages(&vocabulary);

    let mut group = criterion.benchmark_group("embed");
    group.sample_size(20);
    group.throughput(Throughput::Elements(PASSAGES as u64));
    for threads in [1, rayon::current_num_threads()] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        group.bench_function(format!("passages of {WORDS} words, {threads} threads"), |bencher| {
            bencher.iter(|| pool.install(|| model.embed_batch(black_box(&passages), &Job::new()).unwrap()));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("one question", |bencher| {
        bencher.iter(|| model.embed(black_box("How do I rotate the keys of the built-in server?")).unwrap());
    });
    group.finish();
}

criterion_group!(benches, embed);
criterion_main!(benches);
