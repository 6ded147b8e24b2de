//! How sure a bound has to be.

/// The number of standard deviations that an error of the estimator stays below with probability `recall`.
///
/// The estimator's error is Gaussian to the eye (a sum over many rotated coordinates), so a row that lies exactly at the
/// k-th distance is ruled out wrongly with probability 1 − `recall`; a nearer row with less. `recall` outside (0, 1)
/// gives 0 below and infinity above.
///
/// Source of the approximation: Acklam's rational approximation of the normal quantile, relative error below 1.2e-9.
///
/// ```
/// assert!((limnion_rabitq::sureness(0.95) - 1.6449).abs() < 1e-3);
/// assert_eq!(limnion_rabitq::sureness(0.5), 0.0);
/// ```
pub fn sureness(recall: f32) -> f32 {
    let p = f64::from(recall);
    if p <= 0.5 {
        return 0.0;
    }
    if p >= 1.0 {
        return f32::INFINITY;
    }
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let polynomial = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let quantile = if p <= 0.97575 {
        let q = p - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    } else {
        let q = (-2.0 * (1.0 - p).ln()).sqrt();
        -polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    };
    quantile as f32
}

#[cfg(test)]
mod tests {
    use super::sureness;

    #[test]
    fn known_quantiles_of_the_normal_distribution_come_out() {
        for (p, z) in [(0.8413, 1.0), (0.9, 1.2816), (0.97725, 2.0), (0.99, 2.3263), (0.999, 3.0902)] {
            assert!((sureness(p) - z).abs() < 2e-3, "{p}: {}", sureness(p));
        }
        assert_eq!(sureness(0.2), 0.0);
        assert_eq!(sureness(1.0), f32::INFINITY);
    }
}
