//! Configuration: YAML files go in, a [`model::Config`] with nothing left to check comes out, or every problem there is.
//!
//! [`load`] is the only door; a [`Loader`] is the same door for a daemon that comes back. Each file is read (`files`),
//! decoded and checked by itself (`edge`, `lists` and what they use), then all are linked (`validate`). No message and no
//! `Debug` shows a secret.

mod credentials;
mod edge;
mod file;
mod files;
mod injection;
mod jwt_keys;
mod lists;
mod loader;
pub mod model;
mod node;
mod patterns;
mod problem;
mod rules;
mod schema;
mod secrets;
mod show;
mod target;
mod tls;
pub mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use loader::Loader;
pub use problem::{Problem, Problems};
pub use schema::{Document, schema};

/// A configuration that is fit to be used, and what is known about its files.
pub struct Loaded {
    /// The configuration.
    pub config: model::Config,
    /// What is allowed, but should be known.
    pub warnings: Vec<Problem>,
    /// All that was read, found or not, and the include folder: a change of any of these may change the configuration.
    pub files: Vec<PathBuf>,
    /// Fragments that were parsed by this load.
    pub fragments_parsed: usize,
    /// Fragments that an earlier load had parsed and that have not changed since, nor has any file they refer to.
    pub fragments_kept: usize,
}

/// Loads the configuration whose main file is at `path`.
///
/// # Errors
/// Every problem of all files, in the order of the files.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    Loader::new(path).load()
}
