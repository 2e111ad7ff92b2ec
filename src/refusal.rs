//! Every answer that the edge itself authors: status, stable code, public text and `Proxy-Status` error from one variant.
//!
//! In: why a request is not (or not wholly) answered by its target. Out: the header and body a client sees. Texts are
//! literals or configured values; a cause that a library words goes to the log only.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;

use crate::request::rate_limit::{self, Window};

/// `requestrocket-proxy-code` on every answer.
pub const PROXY_CODE: HeaderName = HeaderName::from_static("requestrocket-proxy-code");
/// `requestrocket-proxy-message` on every answer.
pub const PROXY_MESSAGE: HeaderName = HeaderName::from_static("requestrocket-proxy-message");
/// `requestrocket-proxy-warning`, where there is one.
pub const PROXY_WARNING: HeaderName = HeaderName::from_static("requestrocket-proxy-warning");
/// `Proxy-Status` of RFC 9209.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// `X-Request-Id`, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Code of an answer that the target gave.
pub const GRANTED: HeaderValue = HeaderValue::from_static(GRANTED_CODE);
/// The same as text.
pub const GRANTED_CODE: &str = "proxy-access-granted";
/// Message of an answer that the target gave.
pub const GRANTED_MESSAGE: HeaderValue = HeaderValue::from_static("Proxy authentication successful");

/// How the edge names itself in `Via` and `Proxy-Status`.
pub const NAME: &str = "requestrocket-edge";

/// Methods that are proxied, as `Allow` lists them.
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS, HEAD");

/// Why the edge answers in the target's place.
#[derive(Debug)]
pub enum Refusal {
    /// The path is not `/api/{proxyId}...`.
    NotApi,
    /// The path can be read in more than one way; the text says how.
    MalformedPath(&'static str),
    /// A method that is not proxied.
    MethodNotAllowed,
    /// More or longer header fields than the edge takes.
    HeaderTooLarge,
    /// No, wrong, duplicate, expired or inactive credential; unknown or inactive proxy. One answer for all, so that nobody
    /// can enumerate proxies.
    CredentialDenied,
    /// Too many invalid credentials from this address; how many seconds until more are listened to.
    Guessing(u64),
    /// The account is suspended.
    BillingSuspended,
    /// The rule of this id denies.
    RuleDenied(Box<str>),
    /// Over a rate limit.
    RateLimited(Box<RateLimited>),
    /// The request's framing or its `Connection` header makes no sense.
    MalformedRequest,
    /// The request body exceeds this many bytes.
    RequestTooLarge(u64),
    /// The client stopped sending its body.
    ClientStalled,
    /// The target's answer exceeds this many bytes.
    ResponseTooLarge(u64),
    /// The target did not answer within this time.
    TargetTimeout(TimeoutPhase, Duration),
    /// The target could not be reached, broke off, or spoke nonsense.
    TargetFailed(TargetFault),
    /// The edge is full.
    AtCapacity,
    /// A fault of the edge itself.
    Fault,
}

/// What a client over its limit is told.
#[derive(Debug)]
pub struct RateLimited {
    /// The limit that was reached.
    pub over: rate_limit::Refused,
    /// Seconds after which it will be admitted.
    pub retry_after: u64,
    /// The value of `RateLimit`.
    pub budget: String,
    /// The value of `RateLimit-Policy`.
    pub policy: String,
}

/// What took too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutPhase {
    Dns,
    Connect,
    Response,
}

/// What went wrong between the edge and a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetFault {
    /// The name has no usable address.
    Dns,
    /// The address is one that targets may not have.
    Prohibited,
    /// There is no route to the address.
    Unroutable,
    Refused,
    /// Any other failure to connect.
    Unavailable,
    /// The certificate does not hold.
    Certificate,
    /// The handshake failed otherwise.
    Tls,
    /// The connection ended before there was an answer.
    Terminated,
    /// The connection ended within the answer.
    Incomplete,
    /// What came is not HTTP.
    Protocol,
}

impl Refusal {
    /// The status code.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotApi => StatusCode::NOT_FOUND,
            Self::MalformedPath(_) | Self::MalformedRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::CredentialDenied | Self::RuleDenied(_) => StatusCode::FORBIDDEN,
            Self::BillingSuspended => StatusCode::PAYMENT_REQUIRED,
            Self::RateLimited(_) | Self::Guessing(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::RequestTooLarge(_) | Self::ResponseTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTimeout(..) => StatusCode::GATEWAY_TIMEOUT,
            Self::TargetFailed(_) => StatusCode::BAD_GATEWAY,
            Self::AtCapacity => StatusCode::SERVICE_UNAVAILABLE,
            Self::Fault => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// `requestrocket-proxy-code`. `None` for a fault of ours: such an answer carries no RequestRocket header at all.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotApi
            | Self::MalformedPath(_)
            | Self::MethodNotAllowed
            | Self::HeaderTooLarge
            | Self::MalformedRequest
            | Self::Guessing(_)
            | Self::CredentialDenied => "proxy-access-denied",
            Self::BillingSuspended => "billing-suspended",
            Self::ResponseTooLarge(_) => "response-too-large",
            Self::RuleDenied(_)
            | Self::RateLimited(_)
            | Self::RequestTooLarge(_)
            | Self::ClientStalled
            | Self::TargetTimeout(..)
            | Self::TargetFailed(_)
            | Self::AtCapacity => GRANTED_CODE,
            Self::Fault => return None,
        })
    }

    /// `requestrocket-proxy-message`, and the `detail` of the body.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::NotApi => "Path must be /api/{proxyId}/{target path}".into(),
            Self::MalformedPath(reason) => (*reason).into(),
            Self::MethodNotAllowed => "Method is not proxied".into(),
            Self::HeaderTooLarge => "Request header is too large".into(),
            Self::CredentialDenied => "Invalid proxy credential".into(),
            Self::Guessing(_) => "Too many invalid credentials from this address".into(),
            Self::BillingSuspended => "Payment Required - Account suspended due to insufficient budget".into(),
            Self::RuleDenied(id) => format!("Denied by authorization rule {id}").into(),
            Self::RateLimited(limited) => {
                let window = match limited.over.window {
                    Window::Minute => "minute",
                    Window::Day => "day",
                };
                format!("Rate limit exceeded: {} requests per {window}", limited.over.limit).into()
            }
            Self::MalformedRequest => "Request is malformed or ambiguous".into(),
            Self::RequestTooLarge(limit) => format!("Request payload exceeds {} limit", human_size(*limit)).into(),
            Self::ClientStalled => "Request body was not received in time".into(),
            Self::ResponseTooLarge(limit) => format!("Response payload exceeds {} limit", human_size(*limit)).into(),
            Self::TargetTimeout(_, time) => {
                format!("Target did not respond within {} seconds", time.as_secs_f64()).into()
            }
            Self::TargetFailed(fault) => format!("Target could not be reached: {}", fault.stage()).into(),
            Self::AtCapacity => "Proxy is at capacity".into(),
            Self::Fault => "The proxy failed".into(),
        }
    }

    /// The error token of RFC 9209, section 2.3.
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::CredentialDenied
            | Self::Guessing(_)
            | Self::BillingSuspended
            | Self::RuleDenied(_)
            | Self::RateLimited(_) => "http_request_denied",
            Self::NotApi
            | Self::MalformedPath(_)
            | Self::MethodNotAllowed
            | Self::HeaderTooLarge
            | Self::MalformedRequest
            | Self::RequestTooLarge(_)
            | Self::ClientStalled => "http_request_error",
            Self::ResponseTooLarge(_) => "http_response_body_size",
            Self::TargetTimeout(TimeoutPhase::Dns, _) => "dns_timeout",
            Self::TargetTimeout(TimeoutPhase::Connect, _) => "connection_timeout",
            Self::TargetTimeout(TimeoutPhase::Response, _) => "http_response_timeout",
            Self::TargetFailed(fault) => fault.proxy_status(),
            Self::AtCapacity => "connection_limit_reached",
            Self::Fault => "proxy_internal_error",
        }
    }

    /// A short name for metrics and logs: one per variant, never request text.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotApi => "not_api",
            Self::MalformedPath(_) => "malformed_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::HeaderTooLarge => "header_too_large",
            Self::CredentialDenied => "credential_denied",
            Self::Guessing(_) => "guessing",
            Self::BillingSuspended => "billing_suspended",
            Self::RuleDenied(_) => "rule_denied",
            Self::RateLimited(_) => "rate_limited",
            Self::MalformedRequest => "malformed_request",
            Self::RequestTooLarge(_) => "request_too_large",
            Self::ClientStalled => "client_stalled",
            Self::ResponseTooLarge(_) => "response_too_large",
            Self::TargetTimeout(..) => "target_timeout",
            Self::TargetFailed(_) => "target_failed",
            Self::AtCapacity => "at_capacity",
            Self::Fault => "fault",
        }
    }

    /// The whole answer: header and body. `warning` goes into `requestrocket-proxy-warning`.
    pub fn answer(&self, request_id: &HeaderValue, warning: Option<&HeaderValue>) -> (ResponseHeader, Bytes) {
        let body = self.body(request_id);
        let mut head = ResponseHeader::build(self.status(), Some(12)).expect("every status here is a valid one");
        let mut set = |name: HeaderName, value: HeaderValue| {
            head.insert_header(name, value).expect("a HeaderName and a HeaderValue are valid as they are");
        };
        set(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        set(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        set(PROXY_STATUS, header_text(&format!("{NAME}; error={}", self.proxy_status())));
        set(REQUEST_ID, request_id.clone());
        if let Some(code) = self.code() {
            set(PROXY_CODE, HeaderValue::from_static(code));
            set(PROXY_MESSAGE, header_text(&self.message()));
            if let Some(warning) = warning {
                set(PROXY_WARNING, warning.clone());
            }
        }
        match self {
            Self::MethodNotAllowed => set(header::ALLOW, ALLOWED_METHODS),
            Self::Guessing(wait) => set(header::RETRY_AFTER, HeaderValue::from(*wait)),
            // One second: long enough not to come back into the same burst, short enough to notice that it is over.
            Self::AtCapacity => set(header::RETRY_AFTER, HeaderValue::from_static("1")),
            Self::RateLimited(limited) => {
                set(header::RETRY_AFTER, HeaderValue::from(limited.retry_after));
                set(HeaderName::from_static("ratelimit"), header_text(&limited.budget));
                set(HeaderName::from_static("ratelimit-policy"), header_text(&limited.policy));
            }
            _ => {}
        }
        (head, body)
    }

    /// The body: a problem of RFC 9457. Its type is `about:blank`, so its title is the status's own phrase.
    fn body(&self, request_id: &HeaderValue) -> Bytes {
        let status = self.status();
        let mut problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.message(),
            "request_id": request_id.to_str().unwrap_or_default(),
        });
        if let Some(code) = self.code() {
            problem["code"] = code.into();
        }
        let mut body = problem.to_string();
        body.push('\n');
        body.into()
    }
}

impl TargetFault {
    /// Where it happened, in the words of the contract.
    fn stage(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Prohibited | Self::Unroutable | Self::Refused | Self::Unavailable => "connect",
            Self::Certificate | Self::Tls => "tls",
            Self::Terminated | Self::Incomplete | Self::Protocol => "protocol",
        }
    }

    /// The error token of RFC 9209, section 2.3.
    pub fn proxy_status(self) -> &'static str {
        match self {
            Self::Dns => "dns_error",
            Self::Prohibited => "destination_ip_prohibited",
            Self::Unroutable => "destination_ip_unroutable",
            Self::Refused => "connection_refused",
            Self::Unavailable => "destination_unavailable",
            Self::Certificate => "tls_certificate_error",
            Self::Tls => "tls_protocol_error",
            Self::Terminated => "connection_terminated",
            Self::Incomplete => "http_response_incomplete",
            Self::Protocol => "http_protocol_error",
        }
    }
}

/// `6MB` for 6 MiB, as the contract words it; bytes where the limit is not a round one.
fn human_size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    match bytes {
        b if b >= MIB && b % MIB == 0 => format!("{}MB", b / MIB),
        b if b >= KIB && b % KIB == 0 => format!("{}KB", b / KIB),
        b => format!("{b} bytes"),
    }
}

/// A header value of text that is configured or composed here. Ids and texts hold no control bytes: `config` refuses them.
fn header_text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("invalid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: HeaderValue = HeaderValue::from_static("r1");

    #[test]
    fn a_fault_of_ours_carries_no_requestrocket_header() {
        let (head, body) = Refusal::Fault.answer(&ID, Some(&HeaderValue::from_static("Low budget")));
        assert_eq!(head.status, 500);
        assert!(head.headers.keys().all(|name| !name.as_str().starts_with("requestrocket")), "{head:?}");
        assert!(!String::from_utf8_lossy(&body).contains("\"code\""));
    }

    #[test]
    fn sizes_are_worded_as_in_the_contract() {
        for (bytes, text) in [(6 << 20, "6MB"), (10 << 20, "10MB"), (64 << 10, "64KB"), (1000, "1000 bytes")] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let (head, body) = Refusal::TargetTimeout(TimeoutPhase::Response, Duration::from_secs(30)).answer(&ID, None);
        assert_eq!(head.headers["proxy-status"], "requestrocket-edge; error=http_response_timeout");
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("the body is JSON");
        assert_eq!(problem["status"], 504);
        assert_eq!(problem["title"], "Gateway Timeout");
        assert_eq!(problem["detail"], "Target did not respond within 30 seconds");
        assert_eq!(problem["code"], "proxy-access-granted");
        assert_eq!(problem["request_id"], "r1");
    }
}
