use std::time::Instant;
use half::f16;
use limnion_index::{GraphIndex, GraphOptions, GraphParams, Precision};
use limnion_types::{Job, Metric};
fn npy(path: &std::path::Path) -> (Vec<u8>, usize) {
    let bytes = std::fs::read(path).expect("a file");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    let shape = header.split("'shape': (").nth(1).expect("a shape").split(')').next().expect("a shape");
    let columns = shape.split(',').nth(1).expect("two dimensions").trim().parse().expect("a number");
    (bytes[start..].to_vec(), columns)
}
fn halves(path: &std::path::Path) -> (Vec<f32>, usize) {
    let (bytes, columns) = npy(path);
    (bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(), columns)
}
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("linux");
    text.split(' ').next().expect("a number").parse::<f64>().expect("a number") / 1e9
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let folder = std::path::Path::new(&args[1]);
    let bits: u8 = args[2].parse().unwrap();
    let originals = match args[3].as_str() { "f32" => Some(Precision::F32), "f16" => Some(Precision::F16), _ => None };
    let degree: u32 = args[4].parse().unwrap();
    let (base, dim) = halves(&folder.join("base.f16.npy"));
    let (queries, _) = halves(&folder.join("queries.f16.npy"));
    let (bytes, columns) = npy(&folder.join("neighbors.npy"));
    let numbers: Vec<u64> = bytes.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
    let truth: Vec<Vec<u64>> = numbers.chunks_exact(columns).map(|row| row[..10].to_vec()).collect();
    let params = GraphParams { bits, originals, degree, ..GraphParams::new(Metric::Cosine) };
    let t = Instant::now();
    let mut index = GraphIndex::build(&base, dim, None, &params, &Job::new()).unwrap();
    println!("built in {:?}, {} MB", t.elapsed(), index.memory_bytes() / 1_000_000);
    std::process::Command::new("/tmp/quiet.sh").arg("stop").status().unwrap();
    for inline in [false] { if inline { index.make_inline(); }
    for sureness in [0.5f32] {
        for ef in [24usize, 48, 64, 128] {
            let o = GraphOptions { k: 10, ef, sureness };
            let mut found = 0;
            let mut steps = [0usize; 3];
            for (q, t) in queries.chunks_exact(dim).zip(&truth) {
                let (hits, s) = index.search_steps(q, &o).unwrap();
                for i in 0..3 { steps[i] += s[i]; }
                found += hits.iter().filter(|h| t.contains(&h.id)).count();
            }
            let n = truth.len();
            for rep in [1usize] { let mut best = f64::MAX;
            for _ in 0..10 {
                let t = Instant::now();
                for q in queries.chunks_exact(dim) { for _ in 0..rep { std::hint::black_box(index.search(q, &o).unwrap()); } }
                best = best.min(t.elapsed().as_secs_f64());
            }
            println!("inline {inline} eps {sureness} ef {ef}: recall {:.4} {:.0} QPS {:.1} us  followed {} scanned {} refined {}", found as f64 / (10 * n) as f64, (n * rep) as f64 / best, best / (n * rep) as f64 * 1e6, steps[0]/n, steps[1]/n, steps[2]/n); }
        }
    }
    }
    std::process::Command::new("/tmp/quiet.sh").arg("cont").status().unwrap();
}
