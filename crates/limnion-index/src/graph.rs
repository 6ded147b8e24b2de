pub(crate) mod build;
pub(crate) mod bytes;
pub mod index;
pub(crate) mod leaves;
pub(crate) mod links;
pub(crate) mod records;
pub(crate) mod visited;
pub(crate) mod walk;
