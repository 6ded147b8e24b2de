//! How fast an `IvfIndex` is at which recall, beside a `FlatIndex` in the same run:
//!
//! `cargo run --release -p limnion-index --example ivf -- FOLDER [bits] [f32|f16|none] [lists] [recall]`
//!
//! The folder has `base` and `queries` (`.f16.npy` or `.f32.npy`) and `neighbors.npy` (i32, by inner product), or the word
//! `synthetic:ROWSxDIM` stands for data made on the spot.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program for measuring")]

use std::time::Instant;

use half::f16;
use limnion_index::{FlatIndex, IvfIndex, IvfOptions, IvfParams, Params, Precision, SearchOptions};
use limnion_testkit::Random;
use limnion_types::{Hit, Job, Metric};

struct Data {
    dim: usize,
    base: Vec<f32>,
    queries: Vec<f32>,
    truth: Vec<Vec<u64>>,
}

fn npy(path: &std::path::Path) -> (Vec<u8>, usize) {
    let bytes = std::fs::read(path).expect("a file");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    let shape = header.split("'shape': (").nth(1).expect("a shape").split(')').next().expect("a shape");
    let columns = shape.split(',').nth(1).expect("two dimensions").trim().parse().expect("a number");
    (bytes[start..].to_vec(), columns)
}

/// The rows of `NAME.f16.npy` or `NAME.f32.npy`.
fn rows(folder: &std::path::Path, name: &str) -> (Vec<f32>, usize) {
    let half = folder.join(format!("{name}.f16.npy"));
    if half.exists() {
        let (bytes, columns) = npy(&half);
        return (bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(), columns);
    }
    let (bytes, columns) = npy(&folder.join(format!("{name}.f32.npy")));
    (bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(), columns)
}

impl Data {
    fn load(name: &str) -> Self {
        if let Some(shape) = name.strip_prefix("synthetic:") {
            let (rows, dim) = shape.split_once('x').expect("ROWSxDIM");
            return Self::synthetic(rows.parse().expect("rows"), dim.parse().expect("dim"));
        }
        let folder = std::path::Path::new(name);
        let (base, dim) = rows(folder, "base");
        let (queries, _) = rows(folder, "queries");
        let (bytes, columns) = npy(&folder.join("neighbors.npy"));
        let numbers: Vec<u64> =
            bytes.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
        let truth = numbers.chunks_exact(columns).map(|row| row[..100.min(columns)].to_vec()).collect();
        Self { dim, base, queries, truth }
    }

    /// Clusters of clusters whose spectrum falls off, with noise: what embeddings look like from afar.
    fn synthetic(rows: usize, dim: usize) -> Self {
        let mut random = Random::new(11);
        let spectrum: Vec<f32> = (0..dim).map(|d| (1.0 + d as f32).powf(-0.4)).collect();
        let mut point = |from: Option<&[f32]>, size: f32| -> Vec<f32> {
            (0..dim)
                .map(|d| from.map_or(0.0, |from| from[d]) + size * spectrum[d] * random.gaussian() as f32)
                .collect()
        };
        let coarse: Vec<Vec<f32>> = (0..rows / 5000 + 10).map(|_| point(None, 1.0)).collect();
        let fine: Vec<Vec<f32>> =
            (0..rows / 60 + 10).map(|i| point(Some(&coarse[i % coarse.len()]), 0.7)).collect();
        let mut which = Random::new(12);
        let mut make = |count: usize| -> Vec<f32> {
            (0..count)
                .flat_map(|_| {
                    let mut row = point(Some(&fine[which.below(fine.len())]), 0.7);
                    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                    row.iter_mut().for_each(|x| *x /= length);
                    row
                })
                .collect()
        };
        let (base, queries) = (make(rows), make(500));
        Self { dim, base, queries, truth: Vec::new() }
    }
}

fn measure(name: &str, data: &Data, mut search: impl FnMut(&[f32]) -> Vec<Hit>) -> f64 {
    let mut found = 0;
    for (query, truth) in data.queries.chunks_exact(data.dim).zip(&data.truth) {
        found += search(query).iter().filter(|hit| truth[..10].contains(&hit.id)).count();
    }
    // The least time of each query: the machine may have other work.
    let mut least = vec![f64::MAX; data.truth.len()];
    for _ in 0..9 {
        for (query, least) in data.queries.chunks_exact(data.dim).zip(&mut least) {
            let start = Instant::now();
            std::hint::black_box(search(query));
            *least = least.min(start.elapsed().as_secs_f64());
        }
    }
    let best: f64 = least.iter().sum();
    let recall = found as f64 / (data.truth.len() * 10) as f64;
    let micros = best / data.truth.len() as f64 * 1e6;
    println!("{name:<24} recall {recall:.4}   {micros:8.1} µs   {:8.0} QPS", 1e6 / micros);
    recall
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut data = Data::load(&arguments[0]);
    let bits = arguments.get(1).map_or(1, |bits| bits.parse().expect("bits"));
    let originals = match arguments.get(2).map(String::as_str) {
        Some("f16") => Some(Precision::F16),
        Some("none") => None,
        _ => Some(Precision::F32),
    };
    let lists = arguments.get(3).map(|lists| lists.parse().expect("lists"));
    let job = Job::new();
    let metric = Metric::Cosine;

    if data.truth.is_empty() {
        let exact = Params::new(metric);
        let exact = FlatIndex::build(&data.base, data.dim, None, &exact, &job).expect("good vectors");
        let hits = exact.search_batch(&data.queries, &SearchOptions::new(10), &job).expect("queries");
        data.truth = hits.iter().map(|hits| hits.iter().map(|hit| hit.id).collect()).collect();
    }
    let start = Instant::now();
    let params = IvfParams { bits, originals, lists, ..IvfParams::new(metric) };
    let ivf = IvfIndex::build(&data.base, data.dim, None, &params, &job).expect("good vectors");
    println!(
        "ivf: built in {:.2} s, {} MB, {} lists, the largest of {} rows",
        start.elapsed().as_secs_f64(),
        ivf.memory_bytes() >> 20,
        ivf.list_sizes().len(),
        ivf.list_sizes().iter().max().expect("lists"),
    );
    if let Some(recall) = arguments.get(4) {
        // For a profiler: that recall over and over, or nothing but the build where it is no number.
        let Ok(recall) = recall.parse() else { return };
        let options = IvfOptions { recall: Some(recall), ..IvfOptions::new(10) };
        for _ in 0..100 {
            measure("ivf", &data, |q| ivf.search(q, &options).expect("a query"));
        }
        return;
    }
    let start = Instant::now();
    let params = Params { bits, originals, ..Params::new(metric) };
    let flat = FlatIndex::build(&data.base, data.dim, None, &params, &job).expect("good vectors");
    println!("flat: built in {:.2} s, {} MB", start.elapsed().as_secs_f64(), flat.memory_bytes() >> 20);
    for recall in [0.9, 0.95, 0.99] {
        let options = SearchOptions { recall: Some(recall), ..SearchOptions::new(10) };
        measure(&format!("flat recall={recall}"), &data, |q| flat.search(q, &options).expect("a query"));
    }
    for recall in [0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995] {
        let options = IvfOptions { recall: Some(recall), ..IvfOptions::new(10) };
        let found =
            measure(&format!("ivf recall={recall}"), &data, |q| ivf.search(q, &options).expect("a query"));
        explain(&data, &ivf, &options, found);
    }
    compare_recalls(&data, &ivf);
    for nprobe in [8, 16, 24, 32, 48, 64, 96, 128] {
        let options = IvfOptions { nprobe: Some(nprobe), ..IvfOptions::new(10) };
        let found =
            measure(&format!("ivf nprobe={nprobe}"), &data, |q| ivf.search(q, &options).expect("a query"));
        explain(&data, &ivf, &options, found);
    }
}

/// What is found beside what was asked for: of few and many hits, and among some of the rows.
fn compare_recalls(data: &Data, ivf: &IvfIndex) {
    let count = ivf.len();
    let masks = [1, 5, 20, 100].map(|part| (0..count).map(|row| row * 7 % part == 0).collect::<Vec<bool>>());
    for (mask, k) in [(0, 1), (0, 10), (0, 100), (1, 10), (2, 10), (3, 10)] {
        let selection = ivf.select_mask(&masks[mask]).expect("a mask");
        let selection = (mask > 0).then_some(&selection);
        let mut line = String::new();
        for recall in [0.8, 0.9, 0.95, 0.98, 0.99] {
            let (mut found, mut all) = (0, 0);
            for (query, truth) in data.queries.chunks_exact(data.dim).zip(&data.truth) {
                let truth: Vec<u64> = if mask == 0 {
                    truth[..k.min(truth.len())].to_vec()
                } else {
                    let exact = IvfOptions { recall: Some(1.0), selection, ..IvfOptions::new(k) };
                    ivf.search(query, &exact).expect("a query").iter().map(|hit| hit.id).collect()
                };
                let options = IvfOptions { recall: Some(recall), selection, ..IvfOptions::new(k) };
                let hits = ivf.search(query, &options).expect("a query");
                found += hits.iter().filter(|hit| truth.contains(&hit.id)).count();
                all += truth.len();
            }
            line += &format!("   {recall} {:.4}", found as f64 / all as f64);
        }
        println!("k = {k}, {} rows:{line}", selection.map_or(count, limnion_index::Selection::len));
    }
}

fn explain(data: &Data, ivf: &IvfIndex, options: &IvfOptions<'_>, _: f64) {
    let queries = data.queries.chunks_exact(data.dim);
    let count = queries.len();
    let total = queries.fold([0, 0, 0], |sum, query| {
        let done = ivf.search_explained(query, options).expect("a query").1;
        [sum[0] + done.lists, sum[1] + done.scanned, sum[2] + done.refined]
    });
    println!("    lists, scanned, refined: {:?}", total.map(|sum| sum / count));
}
