//! The contract, over sockets: the real binary between strict clients and scripted targets.
//!
//! Each test is a sentence. What it does not mention is as in `harness::yaml`: one proxy, `demo`, whose client shows
//! `Bearer k1` and whose target is shown `Bearer t1`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking and reports by printing"
)]
#![allow(clippy::needless_pass_by_value, reason = "a sentence reads better without `&` before every literal")]

mod harness;

mod access_log;
mod accounts;
mod admin;
mod certificates;
mod chaos;
mod cli;
mod contract;
mod credentials;
mod dns;
mod forwarding;
mod framing;
mod handover;
mod http2;
mod http2_frames;
mod isolation;
mod jwt;
mod life;
mod limits;
mod listeners;
mod paths;
mod proxy_protocol;
mod rate_limit;
mod reload;
mod retries;
mod review;
mod rules;
mod secrecy;
mod slow;
mod smuggling;
mod streams;
mod systemd;
mod targets;
mod timing;
