//! How near two vectors are.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// How near two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Metric {
    /// Euclidean distance.
    L2 = 0,
    /// Inner product: higher is nearer.
    InnerProduct = 1,
    /// Cosine of the angle: inner product of the vectors scaled to unit length.
    Cosine = 2,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

    /// The name in the API: `l2`, `ip` or `cosine`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Metric::L2 => "l2",
            Metric::InnerProduct => "ip",
            Metric::Cosine => "cosine",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Metric::ALL.into_iter().find(|metric| metric.as_str() == name).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("metric must be 'l2', 'ip' or 'cosine', got {name:?}"),
            )
        })
    }
}
