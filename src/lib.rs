//! requestrocket-edge: the library behind the binary. A map for who comes new:
//!
//! ```text
//! main -> cli -> server -+- reload
//!                        +- listen
//!                        +- proxy -> snapshot -> request . upstream . response -> config::model -> secret
//! ```
//!
//! Imports point down only. The life of a request is read in `proxy`: `admission` takes it through the gates in `request`
//! (route, credential, rules, rate limit), `upstream` finds its target, `request::rewrite` puts the target's credential in
//! place, `response` holds and labels the answer. Every answer that is not the target's stands in `refusal`. Stages know
//! neither a session nor a status; only `proxy` and `response::hold` know Pingora's phases.

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod fields;
pub mod handover;
pub mod lifecycle;
pub mod listen;
pub mod logging;
pub mod observe;
pub mod patience;
pub mod proxy;
pub mod refusal;
pub mod reload;
pub mod request;
pub mod response;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod systemd;
pub mod tls;
pub mod upstream;
