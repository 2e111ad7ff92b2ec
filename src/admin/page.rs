//! The status page: the same facts as `/status`, for people.

use super::status::Status;

/// The page, whole: no script, no asset, nothing to fetch.
pub fn render(status: &Status) -> String {
    format!("<!doctype html><title>requestrocket-edge {}</title>", status.version)
}
