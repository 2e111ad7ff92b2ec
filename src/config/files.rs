//! Reads the files that a configuration is made of, and remembers what was read so that a change is noticed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ahash::RandomState;
use zeroize::Zeroizing;

use super::node::Source;

/// Far above any key, certificate bundle or key set, far below what would hurt: the name may be that of a log or a disk.
const LARGEST_REFERENCE: u64 = 4 << 20;

/// Tells contents of files apart without keeping them. Keyed at random: a fingerprint says nothing about a secret.
#[derive(Default)]
pub(super) struct Fingerprints(RandomState);

impl Fingerprints {
    pub fn of(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }

    /// The fingerprint of what is in a file now; `None` where it cannot be read.
    pub fn on_disk(&self, path: &Path) -> Option<u64> {
        read(path, LARGEST_REFERENCE).ok().map(|bytes| self.of(&bytes))
    }
}

impl Source<'_> {
    /// A name in this file, as a path.
    pub fn resolve(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The bytes of a file that this one refers to. Noted, found or not: either may change.
    pub fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        let bytes = read(path, LARGEST_REFERENCE);
        let fingerprint = bytes.as_ref().ok().map(|bytes| self.shared.fingerprints.of(bytes));
        self.notes.borrow_mut().files.insert(path.to_owned(), fingerprint);
        bytes.map_err(|error| reason(&error))
    }
}

/// The bytes of a plain file of at most `largest` bytes.
pub(super) fn read(path: &Path, largest: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        // Reading a pipe or a terminal would wait for ever.
        return Err(io::Error::other("it is not a plain file"));
    }
    // Sized at once: a buffer that grows leaves copies of secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len().min(largest)).unwrap_or(0) + 1));
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(io::Error::other("it is too large"));
    }
    Ok(bytes)
}

/// Why a file cannot be read, in words that do not depend on the system.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    }
}
