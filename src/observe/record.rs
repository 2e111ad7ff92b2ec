//! The facts of one finished request. Never a query value, a credential, or a byte of a body.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::{Method, Version};

/// One finished request.
pub struct Record<'a> {
    /// When it ended.
    pub time: SystemTime,
    pub request_id: &'a str,
    /// The trace id's header, where the client sent a well-formed one.
    pub traceparent: Option<&'a str>,
    /// The proxy that the path names, known or not.
    pub proxy: Option<Cow<'a, str>>,
    /// The id of the credential that was verified.
    pub credential: Option<&'a str>,
    /// The client: the TCP peer, or what a trusted proxy says of it.
    pub client: Option<IpAddr>,
    pub method: &'a Method,
    /// The target path, as sent.
    pub path: Option<Cow<'a, str>>,
    /// The query that was forwarded. Only its keys are written.
    pub query: Option<&'a [u8]>,
    /// What the client got; `None`: nothing, it was gone.
    pub status: Option<u16>,
    pub proxy_code: Option<&'static str>,
    pub refusal: Option<&'static str>,
    /// The error of RFC 9209 where the edge answered.
    pub error: Option<&'static str>,
    pub duration: Duration,
    /// The target's part of it.
    pub target_duration: Option<Duration>,
    pub target: Option<SocketAddr>,
    pub reused: bool,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub version: Version,
    pub tls: bool,
    pub user_agent: Option<Cow<'a, str>>,
}

impl Record<'_> {
    /// What the edge itself took: the gates, and everything after the target's last byte.
    pub fn overhead(&self) -> Duration {
        self.duration.saturating_sub(self.target_duration.unwrap_or_default())
    }
}
