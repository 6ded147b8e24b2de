//! `.npy`: one array of numpy.
//!
//! The magic `\x93NUMPY`, a version of two bytes, the length of what follows as u16 (version 1) or u32 (2 and 3), and a
//! Python dict with `descr`, `fortran_order` and `shape`; then the numbers.

use half::f16;
use limnion_types::{Job, Result};

use super::{
    Blob, Shape, array, bad, check_dim, check_finite, f32s, head, piece, pieces, row_numbers, u32_at, u64s,
};
use crate::backend::Rows;

const MAGIC: &[u8] = b"\x93NUMPY";
/// More than the header of any plain array; keeps a hostile length from being read.
const LONGEST: u64 = 1 << 20;
/// Values in a header, which is nested at most that deep and long.
const MOST_VALUES: usize = 64;

/// What the header says.
struct Header {
    kind: String,
    fortran: bool,
    shape: Vec<u64>,
    /// Where the numbers begin.
    start: u64,
}

pub(super) fn shape(blob: &dyn Blob) -> Result<Shape> {
    Ok(matrix(blob)?.1)
}

/// The header and the shape of an array of vectors, which fits the length of the file.
fn matrix(blob: &dyn Blob) -> Result<(Header, Shape)> {
    let header = header(blob)?;
    match header.kind.as_str() {
        "<f4" | "<f2" => {}
        "<f8" => {
            return Err(bad("its numbers are float64, float32 or float16 is needed")
                .suggest("save it with np.save(path, array.astype(np.float32))"));
        }
        ">f4" | ">f2" | ">f8" => {
            return Err(bad("its numbers are big-endian, little-endian is needed")
                .suggest("save it with np.save(path, array.astype(\"<f4\"))"));
        }
        kind => {
            return Err(bad(format!("its dtype is {kind:?}, float32 or float16 is needed"))
                .suggest("save it with np.save(path, array.astype(np.float32))"));
        }
    }
    let [rows, dim] = header.shape.as_slice() else {
        return Err(bad(format!("its shape is {}, (n, d) is needed", told(&header.shape)))
            .suggest("save it with np.save(path, array.reshape(-1, d))"));
    };
    if header.fortran {
        return Err(bad("it lies in Fortran order, C order is needed")
            .suggest("save it with np.save(path, np.ascontiguousarray(array))"));
    }
    let (rows, dim) = (*rows, usize::try_from(*dim).map_err(bad)?);
    if rows > 0 || dim > 0 {
        check_dim(dim)?;
    }
    check_length(blob, &header, rows.checked_mul(dim as u64))?;
    Ok((header, Shape { dim, rows: usize::try_from(rows).map_err(bad)? }))
}

fn told(shape: &[u64]) -> String {
    let lengths: Vec<String> = shape.iter().map(u64::to_string).collect();
    if let [one] = lengths.as_slice() { format!("({one},)") } else { format!("({})", lengths.join(", ")) }
}

/// Whether as many numbers follow the header as the shape says.
fn check_length(blob: &dyn Blob, header: &Header, numbers: Option<u64>) -> Result<()> {
    let size = header.kind.get(2..).and_then(|size| size.parse::<u64>().ok());
    let there = blob.len() - header.start;
    if numbers.zip(size).and_then(|(numbers, size)| numbers.checked_mul(size)) != Some(there) {
        return Err(bad(format!(
            "its header tells of an array of {:?} and shape {}, which does not fit the {there} bytes that follow",
            header.kind,
            told(&header.shape)
        )));
    }
    Ok(())
}

pub(super) fn read(
    blob: &dyn Blob,
    first: u64,
    take: &mut dyn FnMut(Rows) -> Result<()>,
    job: &Job,
) -> Result<()> {
    let (header, Shape { dim, rows }) = matrix(blob)?;
    let half = header.kind == "<f2";
    let row = dim as u64 * if half { 2 } else { 4 };
    for range in pieces(rows, piece(dim)) {
        job.check()?;
        let bytes =
            blob.read(header.start + range.start as u64 * row..header.start + range.end as u64 * row)?;
        let vectors: Vec<f32> = if half {
            bytes.chunks_exact(2).map(|two| f16::from_le_bytes(array(two)).to_f32()).collect()
        } else {
            f32s(&bytes).collect()
        };
        check_finite(&vectors, dim, range.start as u64)?;
        take(Rows { ids: row_numbers(first, range), vectors })?;
    }
    Ok(())
}

pub(super) fn read_ids(blob: &dyn Blob) -> Result<Vec<u64>> {
    let header = header(blob)?;
    if !matches!(header.kind.as_str(), "<u8" | "<i8") {
        return Err(bad(format!("the dtype of ids is {:?}, uint64 or int64 is needed", header.kind))
            .suggest("save them with np.save(path, ids.astype(np.uint64))"));
    }
    let [rows] = header.shape.as_slice() else {
        return Err(bad(format!("the shape of ids is {}, (n,) is needed", told(&header.shape)))
            .suggest("save them with np.save(path, ids.ravel())"));
    };
    check_length(blob, &header, Some(*rows))?;
    let ids: Vec<u64> = u64s(&blob.read(header.start..blob.len())?).collect();
    if header.kind == "<i8"
        && let Some(row) = ids.iter().position(|&id| id > i64::MAX as u64)
    {
        return Err(bad(format!("ids must be 0 or more, got a negative one in row {row}")));
    }
    Ok(ids)
}

fn header(blob: &dyn Blob) -> Result<Header> {
    let broken = |problem: &str| bad(format!("its header is not one of numpy: {problem}"));
    let start = head(blob, 12)?;
    if start.len() < 10 || !start.starts_with(MAGIC) {
        return Err(bad("an .npy file begins with \"\\x93NUMPY\", this does not"));
    }
    let version = start.get(6).copied().unwrap_or_default();
    let (offset, length) = match version {
        1 => (10, u64::from(u16::from_le_bytes(array(start.get(8..).unwrap_or_default())))),
        2 | 3 if start.len() == 12 => (12, u64::from(u32_at(&start, 8))),
        2 | 3 => return Err(broken("it is cut short")),
        _ => return Err(bad(format!("it has version {version} of .npy, 1 to 3 are known"))),
    };
    if length > LONGEST || offset + length > blob.len() {
        return Err(broken(&format!("it is to have {length} bytes")));
    }
    let bytes = blob.read(offset..offset + length)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| broken("it is not text"))?;
    let mut parser = Parser { rest: text, values: 0 };
    let Some(Value::Dict(entries)) = parser.value() else {
        return Err(broken("it is not a dict"));
    };
    if !parser.rest.trim().is_empty() {
        return Err(broken("something follows the dict"));
    }
    let mut found = (None, None, None);
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("descr", Value::Text(kind)) => found.0 = Some(kind),
            ("descr", _) => {
                return Err(bad("its rows are records of several fields, plain numbers are needed")
                    .suggest("save one array of float32"));
            }
            ("fortran_order", Value::Truth(fortran)) => found.1 = Some(fortran),
            ("shape", Value::List(lengths)) => {
                let lengths = lengths.into_iter().map(|length| match length {
                    Value::Number(length) => Some(length),
                    _ => None,
                });
                found.2 = lengths.collect::<Option<Vec<u64>>>();
            }
            _ => return Err(broken(&format!("it has an odd {key:?}"))),
        }
    }
    let (Some(kind), Some(fortran), Some(shape)) = found else {
        return Err(broken("it has no descr, no fortran_order or no shape"));
    };
    Ok(Header { kind, fortran, shape, start: offset + length })
}

/// What a Python literal in a header can be.
enum Value {
    Text(String),
    Number(u64),
    Truth(bool),
    List(Vec<Value>),
    Dict(Vec<(String, Value)>),
}

/// Reads the Python literals that numpy writes, and no others.
struct Parser<'a> {
    rest: &'a str,
    values: usize,
}

impl Parser<'_> {
    /// Whether this comes next, which is then behind.
    fn eat(&mut self, sign: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> Option<Value> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return None;
        }
        if self.eat("{") {
            let mut entries = Vec::new();
            while !self.eat("}") {
                let key = self.text()?;
                if !self.eat(":") {
                    return None;
                }
                entries.push((key, self.value()?));
                if !self.eat(",") && !self.rest.trim_start().starts_with('}') {
                    return None;
                }
            }
            return Some(Value::Dict(entries));
        }
        for (open, close) in [("(", ")"), ("[", "]")] {
            if self.eat(open) {
                let mut items = Vec::new();
                while !self.eat(close) {
                    items.push(self.value()?);
                    if !self.eat(",") && !self.rest.trim_start().starts_with(close) {
                        return None;
                    }
                }
                return Some(Value::List(items));
            }
        }
        if self.eat("True") {
            return Some(Value::Truth(true));
        }
        if self.eat("False") {
            return Some(Value::Truth(false));
        }
        if self.rest.starts_with(['\'', '"']) {
            return self.text().map(Value::Text);
        }
        let end = self.rest.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at_checked(end)?;
        let number = digits.parse().ok()?;
        // Python 2 wrote long numbers with this.
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        Some(Value::Number(number))
    }

    fn text(&mut self) -> Option<String> {
        for quote in ["'", "\""] {
            if self.eat(quote) {
                let (text, rest) = self.rest.split_once(quote)?;
                self.rest = rest;
                return (!text.contains('\\')).then(|| text.to_owned());
            }
        }
        None
    }
}
