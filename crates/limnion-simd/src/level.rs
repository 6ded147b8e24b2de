//! The level of CPU that kernels run at.

use std::ffi::OsStr;
use std::fmt;
use std::sync::OnceLock;

/// The variable that lowers the level of a process.
const VARIABLE: &str = "LIMNION_SIMD";

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected as has;
#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected as has;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Scalar,
    /// AVX2, F16C and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL, and all of [`Kind::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 VBMI, VNNI and VPOPCNTDQ, and all of [`Kind::Avx512`].
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// A level of CPU instructions that this CPU has.
///
/// There is no way to make one that the CPU lacks, so a kernel that takes a `Level` may use its instructions.
/// Levels compare by how much they can do.
///
/// ```
/// use limnion_simd::Level;
///
/// assert_eq!(Level::available()[0].name(), "scalar");
/// assert!(Level::available().contains(&Level::current()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(Kind);

impl Level {
    /// The level of this process: the best that the CPU has, or the one named by the environment variable
    /// `LIMNION_SIMD` (`scalar`, `avx2`, `avx512`, `avx512vnni` or `neon`) when the CPU has that one.
    ///
    /// The choice is made at the first call and kept. A name that is unknown or not available here leaves the
    /// best level; [`cpu_features`] then lists `("LIMNION_SIMD", false)`.
    #[must_use]
    pub fn current() -> Level {
        static CURRENT: OnceLock<Level> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let best = Self::available().into_iter().max();
            requested().flatten().or(best).unwrap_or(Level(Kind::Scalar))
        })
    }

    /// Every level that this CPU has, lowest first; the first is always `scalar`.
    #[must_use]
    pub fn available() -> Vec<Level> {
        let mut levels = vec![Level(Kind::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = has!("avx2") && has!("f16c") && has!("popcnt");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            let vnni = avx512 && has!("avx512vbmi") && has!("avx512vnni") && has!("avx512vpopcntdq");
            let kinds = [(avx2, Kind::Avx2), (avx512, Kind::Avx512), (vnni, Kind::Avx512Vnni)];
            levels.extend(kinds.into_iter().filter(|(has, _)| *has).map(|(_, kind)| Level(kind)));
        }
        // The kernels count on the lowest byte of a lane being the first in memory.
        #[cfg(target_arch = "aarch64")]
        if has!("neon") && cfg!(target_endian = "little") {
            levels.push(Level(Kind::Neon));
        }
        levels
    }

    /// The name by which `LIMNION_SIMD` asks for this level.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Level({self})")
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The level asked for by the environment: `None` when nothing is asked, `Some(None)` when it cannot be had.
fn requested() -> Option<Option<Level>> {
    let name = std::env::var_os(VARIABLE).filter(|name| !name.is_empty())?;
    Some(named(&name))
}

fn named(name: &OsStr) -> Option<Level> {
    Level::available().into_iter().find(|level| name == level.name())
}

/// What this CPU has of the instructions that kernels use, in a fixed order with the same names everywhere.
///
/// When the environment variable `LIMNION_SIMD` is set, a last entry `"LIMNION_SIMD"` says whether its level
/// exists here.
///
/// ```
/// let features = limnion_simd::cpu_features();
/// assert!(features.iter().any(|(name, _)| *name == "avx2"));
/// ```
#[must_use]
pub fn cpu_features() -> Vec<(&'static str, bool)> {
    let mut features = detected();
    if let Some(level) = requested() {
        features.push((VARIABLE, level.is_some()));
    }
    features
}

macro_rules! detected {
    (x86_64: [$($x86:tt)*], aarch64: [$($arm:tt)*]) => {
        fn detected() -> Vec<(&'static str, bool)> {
            vec![
                $(($x86, {
                    #[cfg(target_arch = "x86_64")]
                    { has!($x86) }
                    #[cfg(not(target_arch = "x86_64"))]
                    { false }
                }),)*
                $(($arm, {
                    #[cfg(target_arch = "aarch64")]
                    { has!($arm) }
                    #[cfg(not(target_arch = "aarch64"))]
                    { false }
                }),)*
            ]
        }
    };
}

detected! {
    x86_64: [
        "popcnt" "avx2" "f16c" "fma" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vbmi" "avx512vnni"
        "avx512vpopcntdq"
    ],
    aarch64: ["neon" "dotprod"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_ascend_from_scalar_and_have_names_of_their_own() {
        let levels = Level::available();
        assert_eq!(levels[0].name(), "scalar");
        assert!(levels.is_sorted());
        let mut names: Vec<_> = levels.iter().map(|level| level.name()).collect();
        names.dedup();
        assert_eq!(names.len(), levels.len());
    }

    #[test]
    fn only_an_available_level_can_be_asked_for() {
        for level in Level::available() {
            assert_eq!(named(level.name().as_ref()), Some(level));
        }
        assert_eq!(named("AVX2".as_ref()), None);
        assert_eq!(named(if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" }.as_ref()), None);
    }

    #[test]
    fn features_have_the_same_names_everywhere() {
        let features = cpu_features();
        for name in ["avx2", "avx512vbmi", "avx512vnni", "avx512vpopcntdq", "neon"] {
            assert!(features.iter().any(|(feature, _)| *feature == name), "{name}");
        }
    }
}
