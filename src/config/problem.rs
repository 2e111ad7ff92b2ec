//! What is wrong with a configuration, told so that its reader knows where to look and what to write instead.

use std::fmt;
use std::sync::Arc;

/// One thing to put right. Displayed as one line, `file: path: message`, that never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as seen from the folder of the main one.
    pub file: Arc<str>,
    /// Where in the file: `proxies[2].timeout`, or a line and a column. Empty: the file as a whole.
    pub path: String,
    /// What is wrong there, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.file, self.message)
        } else {
            write!(f, "{}: {}: {}", self.file, self.path, self.message)
        }
    }
}

/// Everything that is wrong with a configuration, in the order of its files. Displayed as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// The problems one by one; at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "never empty: without a problem there is a configuration")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known word that `word` was probably meant to be.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        // A third of the letters: takes `expires` for `expires_at`, but not `chain` for `claims`.
        .filter(|(edits, candidate)| edits * 3 <= word.chars().count().max(candidate.chars().count()))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` or `c`, each in backticks.
pub(super) fn alternatives<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// `a`, `b`, `c`.
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A value from a file, fit for one line of a message.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", fit(text))
}

/// A text from a file as it may stand in a line: without line breaks and other characters that a terminal acts on.
pub(super) fn fit(text: &str) -> String {
    // Enough to recognise a value by, short enough to leave the advice after it in sight.
    const LONGEST: usize = 64;
    let mut shown = String::new();
    for character in text.chars().take(LONGEST) {
        match character {
            '\\' | '"' | '\'' => shown.push(character), // need no escape between backticks
            other => shown.extend(other.escape_debug()),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line() {
        let problem = Problem { file: "edge.yaml".into(), path: "region".into(), message: "`a b` is wrong".into() };
        assert_eq!(problem.to_string(), "edge.yaml: region: `a b` is wrong");
        let problem = Problem { path: String::new(), ..problem };
        assert_eq!(problem.to_string(), "edge.yaml: `a b` is wrong");
    }

    #[test]
    fn words_are_guessed_only_when_close() {
        let known = ["timeout", "target", "target_credential", "claims"];
        for (word, guess) in [
            ("tiemout", Some("timeout")),
            ("Target", Some("target")),
            ("time-out", Some("timeout")),
            ("chain", None),
            ("x", None),
        ] {
            assert_eq!(closest(word, known), guess, "{word}");
        }
    }

    #[test]
    fn values_are_quoted_on_one_line() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(quoted("say \"x\""), "`say \"x\"`");
        assert_eq!(quoted(&"x".repeat(100)), format!("`{}…`", "x".repeat(64)));
    }
}
