//! Every kernel at every level of this CPU. Times are per row (scans, code dots, distances to rows) or per call.
//!
//! `cargo bench -p limnion-simd -- 'scan/.*/avx512vnni'` runs some of them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use half::f16;
use limnion_simd::{
    BlockShape, Bound, Level, Line, Lut, Probe, Survivors, bytes, bytes_mut, code, dot_f32, dot_f32_f16,
    dot_f32_rows, dot_i8, fht, flip_signs, hamming, huge_pages, kac_walk, l2sq_f32, pack_signs, prefetch,
    scale, scan, scan_selected,
};

/// A fixed sequence of whole numbers that look random.
fn noise(seed: u64) -> impl Iterator<Item = u64> {
    (seed..).map(|index| {
        let mixed = (index ^ index >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

fn floats(seed: u64, count: usize) -> Vec<f32> {
    noise(seed).map(|bits| (bits >> 40) as f32 / (1 << 23) as f32 - 1.0).take(count).collect()
}

/// Reports the time of `work` divided by the number of rows it handles.
fn per_row(bencher: &mut Bencher<'_>, rows: usize, mut work: impl FnMut()) {
    bencher.iter_custom(|iterations| {
        let start = Instant::now();
        for _ in 0..iterations {
            work();
        }
        Duration::from_secs_f64(start.elapsed().as_secs_f64() / rows as f64)
    });
}

fn blocks(shape: BlockShape, rows: usize) -> Vec<Line> {
    let mut lines = Vec::with_capacity(rows.div_ceil(BlockShape::ROWS) * shape.block_bytes() / 64);
    huge_pages(&lines);
    lines.resize(lines.capacity(), Line::default());
    let mut random = noise(1);
    for block in bytes_mut(&mut lines).chunks_mut(shape.block_bytes()) {
        for (place, bits) in block.chunks_mut(8).zip(&mut random) {
            place.copy_from_slice(&bits.to_le_bytes());
        }
        let mut sign = vec![0; shape.code_bytes()];
        for lane in 0..BlockShape::ROWS {
            shape.read_signs(block, lane, &mut sign);
            let (add, error) = (f16::from_f32(1.0), f16::from_f32(0.05));
            shape.write_row(block, lane, &sign, add, f16::from_f32(-1.0), error);
        }
    }
    lines
}

/// A bound that about one row in `one_in` survives.
fn bound(level: Level, shape: BlockShape, blocks: &[u8], lut: &Lut, one_in: usize) -> Bound {
    let bound = Bound { scale: lut.step(), bias: lut.bias(), g_add: 0.5, g_error: 1.0, threshold: f32::MAX };
    let mut survivors = Survivors::new(32_000);
    let mut probes = [Probe { lut, bound, survivors: &mut survivors }];
    scan(level, shape, blocks, 0, 0..1_000, &mut probes);
    let mut lower: Vec<_> = survivors.as_slice().iter().map(|s| s.estimate - s.error).collect();
    lower.sort_unstable_by(f32::total_cmp);
    Bound { threshold: lower.get(lower.len() / one_in).copied().unwrap_or(0.0), ..bound }
}

fn scans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for (rows, dim) in [(99_968, 384), (999_936, 384), (99_968, 768)] {
        let Some(shape) = BlockShape::new(dim) else { continue };
        let lines = blocks(shape, rows);
        let count = rows / BlockShape::ROWS;
        let every_fourth: Vec<_> = (0..count as u32).step_by(4).map(|block| (block, u32::MAX)).collect();
        for level in Level::available() {
            let luts: Vec<_> = (0..8).map(|seed| Lut::new(level, &floats(seed * 10_000, dim))).collect();
            let mut stores = vec![Survivors::new(1_024); 8];
            for (probes, one_in) in [(1, 32_000), (1, 1_000), (1, 50), (2, 1_000), (4, 1_000), (8, 1_000)] {
                let bounds: Vec<_> =
                    luts.iter().map(|lut| bound(level, shape, bytes(&lines), lut, one_in)).collect();
                let name = format!("{rows}x{dim}/{probes} probes, 1 in {one_in} survives/{level}");
                group.bench_function(name, |bencher| {
                    per_row(bencher, rows * probes, || {
                        let mut next = 0;
                        while next < count {
                            stores.iter_mut().for_each(Survivors::clear);
                            let mut probes: Vec<_> = (luts.iter().zip(&bounds).zip(&mut stores).take(probes))
                                .map(|((lut, &bound), survivors)| Probe { lut, bound, survivors })
                                .collect();
                            next = scan(level, shape, bytes(&lines), 0, next..count, &mut probes);
                        }
                    });
                });
            }
            group.bench_function(format!("{rows}x{dim}/every fourth block/{level}"), |bencher| {
                let bound = bound(level, shape, bytes(&lines), &luts[0], 32_000);
                per_row(bencher, every_fourth.len() * BlockShape::ROWS, || {
                    stores[0].clear();
                    let mut probes = [Probe { lut: &luts[0], bound, survivors: &mut stores[0] }];
                    black_box(scan_selected(level, shape, bytes(&lines), 0, &every_fourth, &mut probes));
                });
            });
        }
    }
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lut");
    for dim in [384, 768] {
        let query = floats(3, dim);
        for level in Level::available() {
            let mut lut = Lut::new(level, &query);
            group.bench_function(format!("{dim}/{level}"), |bencher| {
                bencher.iter(|| lut.rebuild(level, black_box(&query)));
            });
        }
    }
}

fn distances(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("distance");
    for dim in [384, 768] {
        let (a, b) = (floats(1, dim), floats(2_000, dim));
        let half: Vec<_> = b.iter().map(|&value| f16::from_f32(value)).collect();
        let bytes: Vec<_> = b.iter().map(|&value| (value * 127.0) as i8).collect();
        let (rows, mut out) = (floats(9, dim * 64), [0.0; 64]);
        let (bits, other): (Vec<_>, Vec<_>) =
            noise(8).map(|bits| (bits as u8, (bits >> 8) as u8)).take(dim).unzip();
        for level in Level::available() {
            let mut bench = |name: &str, rows, work: &mut dyn FnMut()| {
                group.bench_function(format!("{name}/{dim}/{level}"), |bencher| {
                    per_row(bencher, rows, &mut *work);
                });
            };
            bench("dot_f32", 1, &mut || {
                black_box(dot_f32(level, black_box(&a), &b));
            });
            bench("l2sq_f32", 1, &mut || {
                black_box(l2sq_f32(level, black_box(&a), &b));
            });
            bench("dot_f32_f16", 1, &mut || {
                black_box(dot_f32_f16(level, black_box(&a), &half));
            });
            bench("dot_f32_rows", 64, &mut || dot_f32_rows(level, black_box(&a), &rows, black_box(&mut out)));
            bench("dot_i8", 1, &mut || {
                black_box(dot_i8(level, black_box(&bytes), &bytes));
            });
            bench("hamming of dim bytes", 1, &mut || {
                black_box(hamming(level, black_box(&bits), &other));
            });
        }
    }
}

fn rotations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rotation");
    let flips: Vec<_> = noise(4).take(1_024).collect();
    for level in Level::available() {
        for length in [64, 256, 512, 1_024, 4_096] {
            let mut x = vec![0.0; length];
            group.bench_function(format!("fht/{length}/{level}"), |bencher| {
                bencher.iter(|| fht(level, black_box(&mut x)));
            });
        }
        let mut x = floats(5, 384);
        group.bench_function(format!("four rounds/384/{level}"), |bencher| {
            bencher.iter(|| {
                for round in 0..4 {
                    flip_signs(level, &mut x, &flips[round * 6..]);
                    let start = round % 2 * 128;
                    fht(level, &mut x[start..start + 256]);
                    scale(level, &mut x[start..start + 256], 1.0 / 16.0);
                    kac_walk(level, &mut x);
                    scale(level, &mut x, 0.707);
                }
                black_box(&mut x);
            });
        });
        let mut signs = [0; 48];
        group.bench_function(format!("pack_signs/384/{level}"), |bencher| {
            bencher.iter(|| pack_signs(level, black_box(&x), black_box(&mut signs)));
        });
    }
}

fn codes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("code");
    for dim in [384, 768] {
        let query: Vec<_> = floats(6, dim).iter().map(|value| (value * 8_191.0) as i16).collect();
        for bits in 1..=7 {
            let bytes = code::row_bytes(dim, bits);
            let rows: Vec<_> = noise(7).map(|bits| bits as u8).take(bytes * 64).collect();
            for level in Level::available() {
                group.bench_function(format!("dot/{bits} bits/{dim}/{level}"), |bencher| {
                    per_row(bencher, 64, || {
                        for row in rows.chunks(bytes) {
                            prefetch(&row[..1]);
                            black_box(code::dot_code(level, row, bits, black_box(&query)));
                        }
                    });
                });
            }
        }
    }
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    targets = scans, tables, distances, rotations, codes
}
criterion_main!(kernels);
