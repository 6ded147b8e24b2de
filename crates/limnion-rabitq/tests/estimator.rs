//! The estimator is unbiased, its error has the deviation of the literature, and its bound covers what it says.
#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use limnion_rabitq::{Form, Quantizer, Query, Standing};
use limnion_simd::{BlockShape, Bound, Level, Line, Probe, Survivors, scan};
use limnion_testkit::Random;

/// √((1 − a²)/a²) of the best code of each width, at 384, 768 and 1536 dimensions, by trying every scale on Gaussian
/// vectors: the error of ⟨o, q⟩ for unit vectors is this over √(D − 1).
const DEVIATION: [(u8, [f64; 3]); 8] = [
    (1, [0.755, 0.755, 0.755]),
    (2, [0.367, 0.367, 0.367]),
    (3, [0.196, 0.197, 0.197]),
    (4, [0.106, 0.107, 0.107]),
    (5, [0.0557, 0.0575, 0.0579]),
    (6, [0.0285, 0.0300, 0.0306]),
    (7, [0.01425, 0.01517, 0.01572]),
    (8, [0.00713, 0.00761, 0.00793]),
];

struct Case {
    quantizer: Quantizer,
    dim: usize,
    rows: usize,
    vectors: Vec<f32>,
    blocks: Vec<Line>,
    extra: Vec<Vec<u8>>,
    errors: Vec<f32>,
    /// What the rows are encoded around; empty for nothing but the mean.
    centre: Vec<f32>,
}

impl Case {
    fn new(dim: usize, rows: usize, bits: u8, form: Form, mean: Vec<f32>, vectors: Vec<f32>) -> Self {
        Self::around(dim, rows, bits, form, mean, vectors, None)
    }

    fn around(
        dim: usize,
        rows: usize,
        bits: u8,
        form: Form,
        mean: Vec<f32>,
        vectors: Vec<f32>,
        centre: Option<&[f32]>,
    ) -> Self {
        let level = Level::current();
        let typical = vectors
            .chunks_exact(dim)
            .map(|row| row.iter().zip(&mean).map(|(x, m)| (x - m).powi(2)).sum::<f32>())
            .fold(0.0, f32::max);
        let quantizer = Quantizer::new(mean, bits, form, 42, typical);
        let centre = centre.map_or(Vec::new(), |centre| quantizer.centre(level, centre));
        let shape = BlockShape::new(quantizer.padded_dim()).unwrap();
        let count = rows.div_ceil(BlockShape::ROWS);
        let mut blocks = vec![Line::default(); count * shape.block_bytes() / size_of::<Line>()];
        let mut work = quantizer.workspace();
        let (mut extra, mut errors) = (Vec::new(), Vec::new());
        let bytes: &mut [u8] = limnion_simd::bytes_mut(&mut blocks);
        bytes.chunks_exact_mut(shape.block_bytes()).for_each(|block| shape.empty(block));
        for (row, vector) in vectors.chunks_exact(dim).enumerate() {
            let code = quantizer.encode_around(level, vector, 1.0, &centre, &mut work);
            assert!(code.fits());
            let start = row / BlockShape::ROWS * shape.block_bytes();
            let block = &mut bytes[start..start + shape.block_bytes()];
            let lane = row % BlockShape::ROWS;
            shape.write_row(block, lane, code.signs, code.f_add, code.f_rescale, code.f_error);
            extra.push(code.extra.to_vec());
            errors.push(code.f_error.to_f32());
        }
        Self { quantizer, dim, rows, vectors, blocks, extra, errors, centre }
    }

    /// The estimate of each row's key, in the caller's units, and its bound per unit of sureness.
    fn estimates(&self, query: &[f32]) -> Vec<(f64, f64)> {
        let level = Level::current();
        let shape = BlockShape::new(self.quantizer.padded_dim()).unwrap();
        let prepared = Query::new(&self.quantizer, level, query, 1.0);
        let unit = f64::from(self.quantizer.scale()).powi(2);
        let standing = self.standing(&prepared);
        let reach = f64::from(standing.reach(f32::MAX, (1.0, 1.0)));
        let mut survivors = Survivors::new(self.rows + 64);
        let bound = Bound {
            scale: prepared.lut().step(),
            bias: prepared.bias(),
            g_add: standing.g_add(),
            g_error: 0.0,
            threshold: f32::MAX,
        };
        let mut probes = [Probe { lut: prepared.lut(), bound, survivors: &mut survivors }];
        let blocks = self.rows.div_ceil(BlockShape::ROWS);
        let end = scan(level, shape, limnion_simd::bytes(&self.blocks), 0, 0..blocks, &mut probes);
        assert_eq!((end, survivors.len()), (blocks, self.rows));
        let mut signs = vec![0; shape.code_bytes()];
        (0..self.rows)
            .map(|row| {
                let survivor = survivors.as_slice()[row];
                let (estimate, error) = if self.quantizer.bits() == 1 {
                    (survivor.estimate, survivor.error)
                } else {
                    let block = &limnion_simd::bytes(&self.blocks)[row / 32 * shape.block_bytes()..];
                    shape.read_signs(&block[..shape.block_bytes()], row % 32, &mut signs);
                    prepared.estimate(level, &standing, &signs, &self.extra[row], self.errors[row])
                };
                (f64::from(estimate) / unit, f64::from(error) * reach / unit)
            })
            .collect()
    }

    fn standing(&self, query: &Query) -> Standing {
        match &*self.centre {
            [] => query.standing(),
            centre => query.standing_to(Level::current(), centre),
        }
    }

    fn key(&self, row: usize, query: &[f32]) -> f64 {
        let vector = &self.vectors[row * self.dim..(row + 1) * self.dim];
        let pairs = vector.iter().zip(query).map(|(&x, &q)| (f64::from(x), f64::from(q)));
        match self.quantizer.form() {
            Form::Euclidean => pairs.map(|(x, q)| (x - q).powi(2)).sum(),
            Form::InnerProduct => -pairs.map(|(x, q)| x * q).sum::<f64>(),
        }
    }
}

fn unit(mut vector: Vec<f32>, dim: usize) -> Vec<f32> {
    for row in vector.chunks_exact_mut(dim) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

#[test]
fn errors_have_the_published_deviation_and_no_bias() {
    for (column, dim) in [384, 768, 1536].into_iter().enumerate() {
        for (bits, shares) in DEVIATION {
            let (rows, queries) = (300, 40);
            let mut random = Random::new(u64::from(bits) + dim as u64);
            let vectors = unit(random.gaussians(rows, dim), dim);
            let case = Case::new(dim, rows, bits, Form::InnerProduct, vec![0.0; dim], vectors);
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..queries {
                let query = unit(random.gaussians(1, dim), dim);
                for (row, (estimate, _)) in case.estimates(&query).into_iter().enumerate() {
                    let error = estimate - case.key(row, &query);
                    sum += error;
                    squares += error * error;
                }
            }
            let count = f64::from(rows as u32 * queries);
            let (mean, deviation) = (sum / count, (squares / count).sqrt());
            let expected = shares[column] / (dim as f64 - 1.0).sqrt();
            assert!(mean.abs() < 4.0 * expected / count.sqrt(), "dim {dim}, {bits} bits: bias {mean}");
            let ratio = deviation / expected;
            println!("dim {dim}, {bits} bits: {ratio:.3}");
            assert!(
                (0.95..1.05).contains(&ratio),
                "dim {dim}, {bits} bits: {deviation} is {ratio} of {expected}"
            );
        }
    }
}

#[test]
fn the_bound_covers_the_share_that_its_sureness_says() {
    for form in [Form::Euclidean, Form::InnerProduct] {
        for bits in 1..=8 {
            let (dim, rows) = (384, 1000);
            let mut random = Random::new(9);
            let vectors = random.clustered(rows, dim, 20);
            let mean: Vec<f32> =
                (0..dim).map(|d| vectors.iter().skip(d).step_by(dim).sum::<f32>() / rows as f32).collect();
            let case = Case::new(dim, rows, bits, form, mean, vectors);
            let (mut below, mut count) = (0, 0);
            for _ in 0..20 {
                let query = random.clustered(1, dim, 1);
                for (row, (estimate, error)) in case.estimates(&query).into_iter().enumerate() {
                    below += usize::from(
                        estimate - limnion_rabitq::sureness(0.95) as f64 * error <= case.key(row, &query),
                    );
                    count += 1;
                }
            }
            let share = below as f64 / count as f64;
            assert!((0.94..0.975).contains(&share), "{form:?}, {bits} bits: {share}");
        }
    }
}

#[test]
fn no_neighbour_within_a_threshold_reaches_further_than_its_reach() {
    let (dim, rows) = (64, 400);
    let mut random = Random::new(5);
    let vectors = random.clustered(rows, dim, 5);
    let case = Case::new(dim, rows, 1, Form::Euclidean, vec![0.0; dim], vectors);
    let scale = f64::from(case.quantizer.scale());
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let lengths: Vec<f64> = case.vectors.chunks_exact(dim).map(|v| norm(v) * scale).collect();
    let span = (
        lengths.iter().copied().fold(f64::MAX, f64::min) as f32,
        lengths.iter().copied().fold(0.0, f64::max) as f32,
    );
    for _ in 0..50 {
        let query = random.clustered(1, dim, 1);
        let prepared = Query::new(&case.quantizer, Level::current(), &query, 1.0);
        for row in 0..rows {
            let vector = &case.vectors[row * dim..(row + 1) * dim];
            let key = case.key(row, &query) * scale * scale;
            let dot: f64 = vector.iter().zip(&query).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let across = (norm(&query).powi(2) - (dot / norm(vector)).powi(2)).max(0.0).sqrt() * scale;
            let reach = f64::from(prepared.standing().reach(key as f32, span));
            assert!(across <= reach * (1.0 + 1e-4) + 1e-4, "row {row}: {across} > {reach}");
        }
    }
}

#[test]
fn vectors_at_the_mean_are_exact() {
    let mean = vec![0.25_f32; 100];
    for bits in [1, 4, 8] {
        let vectors: Vec<f32> = mean.iter().copied().chain((0..100).map(|i| i as f32 / 50.0)).collect();
        let case = Case::new(100, 2, bits, Form::Euclidean, mean.clone(), vectors);
        let (estimate, error) = case.estimates(&vec![0.5; 100])[0];
        assert!(
            (estimate - case.key(0, &vec![0.5; 100])).abs() < 0.02 && error == 0.0,
            "{bits} bits: {estimate}"
        );
    }
}

/// Rows near one point, far from the mean of what they are a part of; and the point.
fn list(random: &mut Random, dim: usize, rows: usize) -> (Vec<f32>, Vec<f32>) {
    let centre = random.gaussians(1, dim);
    let mut vectors = random.gaussians(rows, dim);
    vectors.chunks_exact_mut(dim).for_each(|row| {
        row.iter_mut().zip(&centre).for_each(|(x, c)| *x = 0.6 * *x + c);
    });
    (vectors, centre)
}

#[test]
fn codes_around_a_centre_are_unbiased_and_nearer_by_the_length_of_their_residuals() {
    let (dim, rows, queries) = (384, 300, 40);
    for form in [Form::Euclidean, Form::InnerProduct] {
        for bits in [1, 2, 4, 7] {
            let mut random = Random::new(70 + u64::from(bits));
            let mean = random.gaussians(1, dim).iter().map(|x| 0.5 * x).collect::<Vec<_>>();
            let (vectors, centre) = list(&mut random, dim, rows);
            let centre = Some(&*centre);
            let case = Case::around(dim, rows, bits, form, mean.clone(), vectors.clone(), centre);
            let plain = Case::new(dim, rows, bits, form, mean, vectors);
            let (mut sum, mut squares, mut plain_squares) = (0.0, 0.0, 0.0);
            for _ in 0..queries {
                let (query, _) = list(&mut random, dim, 1);
                let both = case.estimates(&query).into_iter().zip(plain.estimates(&query));
                for (row, ((estimate, _), (plain, _))) in both.enumerate() {
                    let key = case.key(row, &query);
                    sum += estimate - key;
                    squares += (estimate - key).powi(2);
                    plain_squares += (plain - key).powi(2);
                }
            }
            let count = f64::from(rows as u32 * queries);
            let (mean, deviation) = (sum / count, (squares / count).sqrt());
            assert!(mean.abs() < 0.25 * deviation, "{form:?}, {bits} bits: bias {mean} of {deviation}");
            let gain = (plain_squares / squares).sqrt();
            assert!(gain > 1.5, "{form:?}, {bits} bits: {gain}");
        }
    }
}

#[test]
fn the_bound_around_a_centre_covers_the_share_that_its_sureness_says() {
    for form in [Form::Euclidean, Form::InnerProduct] {
        for bits in 1..=8 {
            let (dim, rows) = (384, 1000);
            let mut random = Random::new(90);
            let mean = random.gaussians(1, dim).iter().map(|x| 0.3 * x).collect();
            let (vectors, centre) = list(&mut random, dim, rows);
            let case = Case::around(dim, rows, bits, form, mean, vectors, Some(&centre));
            let (mut below, mut count) = (0, 0);
            for _ in 0..20 {
                let (query, _) = list(&mut random, dim, 1);
                for (row, (estimate, error)) in case.estimates(&query).into_iter().enumerate() {
                    let lower = estimate - limnion_rabitq::sureness(0.95) as f64 * error;
                    below += usize::from(lower <= case.key(row, &query));
                    count += 1;
                }
            }
            let share = below as f64 / count as f64;
            assert!((0.935..0.98).contains(&share), "{form:?}, {bits} bits: {share}");
        }
    }
}

#[test]
fn a_row_at_its_centre_is_exact() {
    let (dim, mut random) = (100, Random::new(3));
    let (mean, centre, query) =
        (random.gaussians(1, dim), random.gaussians(1, dim), random.gaussians(1, dim));
    for form in [Form::Euclidean, Form::InnerProduct] {
        for bits in [1, 4, 8] {
            let vectors: Vec<f32> = centre.iter().copied().chain((0..100).map(|i| i as f32 / 50.0)).collect();
            let case = Case::around(dim, 2, bits, form, mean.clone(), vectors, Some(&centre));
            let (estimate, _) = case.estimates(&query)[0];
            let key = case.key(0, &query);
            assert!(
                (estimate - key).abs() < 0.02 * key.abs().max(10.0),
                "{form:?} {bits}: {estimate}, {key}"
            );
        }
    }
}
