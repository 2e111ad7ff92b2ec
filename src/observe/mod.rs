//! What operators see of a request: one [`record::Record`] feeds the metrics ([`metrics`]) and the access log
//! ([`access_log`]).

pub mod access_log;
pub mod metrics;
pub mod record;
pub mod traffic;
