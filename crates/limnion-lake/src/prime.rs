//! From the rows of a backend to an index.

use limnion_index::{FlatIndex, Params};
use limnion_types::{Error, ErrorKind, Job, Result};

use crate::backend::{Backend, Description, Ids, Rows, Sink};
use crate::entry::{Body, Origin};
use crate::executor::{self, Executor};
use crate::labels::Labels;
use crate::names;

/// Pulls a collection and builds its index.
pub(crate) fn prime(
    backend: &dyn Backend,
    collection: &str,
    params: &Params,
    executor: &dyn Executor,
    job: &Job,
) -> Result<Body> {
    let place = format!("{}/{collection}", backend.name());
    let mut gathered = Gathering { params, place, got: None };
    backend.pull(collection, &mut gathered, job)?;
    let place = gathered.place;
    let Some(Gathered { description, ids, vectors }) = gathered.got else {
        return Err(names::failed(backend.name(), format!("told nothing of {collection:?}")));
    };
    let params = Params { metric: description.metric.unwrap_or(params.metric), ..params.clone() };
    let Description { dim, generation, source, .. } = description;
    let labels = Labels::new(&ids).map_err(|error| error.within(&place))?;
    let index = match (dim, ids) {
        (0, _) => None,
        (_, ids) => {
            let numbers = match &ids {
                Ids::Numbers(numbers) => Some(numbers.as_slice()),
                Ids::Names(_) => None,
            };
            let build = || FlatIndex::build_owned(vectors, dim, numbers, &params, job);
            let built = executor::install(executor, build).ok_or_else(lost)?;
            Some(built.map_err(|error| error.within(&place))?)
        }
    };
    Ok(Body::new(Origin { source, generation, params }, index, labels))
}

struct Gathering<'a> {
    params: &'a Params,
    place: String,
    got: Option<Gathered>,
}

struct Gathered {
    description: Description,
    ids: Ids,
    vectors: Vec<f32>,
}

impl Sink for Gathering<'_> {
    fn begin(&mut self, description: &Description) -> Result<()> {
        let metric = description.metric.unwrap_or(self.params.metric);
        // Room for what is announced, as long as that is not beyond reason: the rows themselves are what counts.
        let room = description.rows.saturating_mul(description.dim).min(1 << 30);
        let mut vectors = Vec::new();
        vectors.try_reserve_exact(room).map_err(|_| {
            let message =
                format!("{}: no memory for {} vectors of {}", self.place, description.rows, description.dim);
            Error::new(ErrorKind::Backend, message)
        })?;
        // The index keeps this very array where it keeps originals as they came, and searches jump about in it.
        limnion_index::huge_pages(&vectors);
        let description = Description { metric: Some(metric), ..description.clone() };
        self.got = Some(Gathered { description, ids: Ids::Numbers(Vec::new()), vectors });
        Ok(())
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Backend, format!("{}: {what}", self.place)));
        let Some(got) = &mut self.got else { return wrong("rows came before their description".to_owned()) };
        let dim = got.description.dim;
        if rows.ids.is_empty() && rows.vectors.is_empty() {
            return Ok(());
        }
        if rows.ids.len().checked_mul(dim) != Some(rows.vectors.len()) {
            let (ids, numbers) = (rows.ids.len(), rows.vectors.len());
            return wrong(format!(
                "{ids} ids came with {numbers} numbers, and {dim} dimensions were announced"
            ));
        }
        match (&mut got.ids, rows.ids) {
            (Ids::Numbers(all), Ids::Numbers(more)) => all.extend(more),
            (Ids::Names(all), Ids::Names(more)) => all.extend(more),
            (all, more) if all.is_empty() => *all = more,
            _ => return wrong("ids must be all numbers or all names".to_owned()),
        }
        got.vectors.extend_from_slice(&rows.vectors);
        Ok(())
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "work was lost")
}
