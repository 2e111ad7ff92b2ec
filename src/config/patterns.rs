//! The regular expressions of rules: bounded in size, shared by all that write the same one.

use std::sync::{Arc, PoisonError};

use regex::bytes::{Regex, RegexBuilder};

use super::node::Node;

/// Compiled size of one pattern, and of its cache in each thread: thousands of ordinary patterns fit, an exploding one does not.
const REGEX_BYTES: usize = 1 << 20;

impl Node<'_> {
    /// A pattern, compiled once for all places that use it.
    pub fn regex(self) -> Option<Arc<Regex>> {
        let pattern = self.text()?;
        if let Some(known) = self.source.notes.borrow().regexes.get(pattern) {
            return Some(Arc::clone(known));
        }
        let shared = self.source.shared.regexes.lock().unwrap_or_else(PoisonError::into_inner).get(pattern).cloned();
        let regex = match shared {
            Some(regex) => regex,
            None => match compiled(pattern) {
                Ok(regex) => Arc::new(regex),
                Err(error) => return self.wrong(&regex_reason(&error)),
            },
        };
        let mut pool = self.source.shared.regexes.lock().unwrap_or_else(PoisonError::into_inner);
        let regex = pool.entry(pattern.to_owned()).or_insert(regex).clone();
        self.source.notes.borrow_mut().regexes.insert(pattern.to_owned(), regex.clone());
        Some(regex)
    }
}

/// With `.` for every character: were a line break none of them, `%0A` in a request would escape a deny rule of `^/admin/.+$`.
fn compiled(pattern: &str) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(pattern);
    builder.dot_matches_new_line(true).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build()
}

/// Why a pattern does not compile, without the picture of it that takes several lines.
fn regex_reason(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(_) = error {
        return "is too large a regular expression; lower its repetition counts".to_owned();
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    let reason = last.strip_prefix("error: ").unwrap_or(last);
    format!("is not a regular expression: {reason}; write `\\` before a character that is meant literally")
}
