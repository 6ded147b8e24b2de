//! How fast a `GraphIndex` is at which recall:
//!
//! `cargo run --release -p limnion-index --example ivf -- FOLDER [bits] [f32|f16|none] [lists] [recall]`
//!
//! The folder has `base` and `queries` (`.f16.npy` or `.f32.npy`) and `neighbors.npy` (i32, by inner product), or the word
//! `synthetic:ROWSxDIM` stands for data made on the spot.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program for measuring")]

use std::time::Instant;

use half::f16;
use limnion_index::{
    FlatIndex, GraphIndex, GraphOptions, GraphParams, Layout, Params, Precision, SearchOptions,
};
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
        let truth = numbers.chunks_exact(columns).map(|row| row[..10].to_vec()).collect();
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
        found += search(query).iter().filter(|hit| truth.contains(&hit.id)).count();
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
    let bits = arguments.get(1).map_or(4, |bits| bits.parse().expect("bits"));
    let originals = match arguments.get(2).map(String::as_str) {
        Some("f32") => Some(Precision::F32),
        Some("none") => None,
        _ => Some(Precision::F16),
    };
    let degree = arguments.get(3).map_or(32, |degree| degree.parse().expect("degree"));
    let job = Job::new();
    let metric = Metric::Cosine;

    if data.truth.is_empty() {
        let exact = Params::new(metric);
        let exact = FlatIndex::build(&data.base, data.dim, None, &exact, &job).expect("good vectors");
        let hits = exact.search_batch(&data.queries, &SearchOptions::new(10), &job).expect("queries");
        data.truth = hits.iter().map(|hits| hits.iter().map(|hit| hit.id).collect()).collect();
    }
    let start = Instant::now();
    let params = GraphParams { bits, originals, degree, ..GraphParams::new(metric) };
    let mut graph = GraphIndex::build(&data.base, data.dim, None, &params, &job).expect("good vectors");
    println!("built in {:.2} s, {:.1} links a row", start.elapsed().as_secs_f64(), graph.mean_degree());
    for layout in [Layout::Compact, Layout::Inline] {
        graph.set_layout(layout).expect("whole");
        println!("{}: {} MB", layout.as_str(), graph.memory_bytes() >> 20);
        for recall in [0.8, 0.9, 0.95, 0.98, 0.99, 0.995] {
            let options = GraphOptions { recall: Some(recall), ..GraphOptions::new(10) };
            report(&data, &graph, &options, &format!("recall={recall}"));
        }
        for ef in [16, 24, 32, 48, 64, 96, 128, 192, 256] {
            let options = GraphOptions { ef: Some(ef), ..GraphOptions::new(10) };
            report(&data, &graph, &options, &format!("ef={ef}"));
        }
    }
}

fn report(data: &Data, graph: &GraphIndex, options: &GraphOptions<'_>, name: &str) {
    measure(name, data, |q| graph.search(q, options).expect("a query"));
    let queries = data.queries.chunks_exact(data.dim);
    let count = queries.len();
    let total = queries.fold([0, 0, 0], |sum, query| {
        let done = graph.search_explained(query, options).expect("a query").1;
        [sum[0] + done.followed, sum[1] + done.scanned, sum[2] + done.refined]
    });
    println!("    followed, scanned, refined: {:?}", total.map(|sum| sum / count));
}
