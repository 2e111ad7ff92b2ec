//! What is decided about a request before it is forwarded. Pure functions over plain values: no session, no snapshot, no HTTP
//! status. Each stage returns a proof that the next one needs, or a reason to refuse.

pub mod credential;
pub mod framing;
pub mod guesses;
pub mod jwt;
pub mod query;
pub mod rate_limit;
pub mod rewrite;
pub mod route;
pub mod rules;
#[cfg(test)]
mod signing;
pub mod upgrade;
