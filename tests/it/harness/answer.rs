//! An answer as a client received it, and what tests expect of it.

use std::time::Duration;

use super::origin;

/// How an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// As its framing says.
    Whole,
    /// The connection was closed, or the stream reset, before that.
    Cut,
}

/// A status, headers and a body, from either HTTP version.
pub struct Answer {
    pub version: &'static str,
    pub status: u16,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Status codes of the interim answers (1xx) before this one.
    pub interim: Vec<u16>,
    pub end: End,
    /// Whether the next request may be sent on the same connection.
    pub reusable: bool,
    /// HTTP/1: the head byte for byte.
    pub raw_head: Vec<u8>,
    /// HTTP/2: the reason of the RST_STREAM that stopped the upload.
    pub upload_stopped: Option<h2::Reason>,
    /// From the first byte of the request to the last one of the answer.
    pub took: Duration,
}

impl Answer {
    /// The value of a header that must not be there twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        origin::one(&self.headers, name, self)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        origin::all(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub fn expect_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub fn expect_header(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.header(name), Some(value), "`{name}`: {self:?}");
        self
    }

    #[track_caller]
    pub fn expect_no_header(&self, name: &str) -> &Self {
        assert_eq!(self.header(name), None, "`{name}`: {self:?}");
        self
    }

    #[track_caller]
    pub fn expect_body(&self, body: impl AsRef<[u8]>) -> &Self {
        let body = body.as_ref();
        assert!(
            self.body == body,
            "the body has {} bytes and should have {}; they {}: {self:?}",
            self.body.len(),
            body.len(),
            match self.body.iter().zip(body).position(|(a, b)| a != b) {
                Some(at) => format!("differ from byte {at} on"),
                None => "agree as far as the shorter one goes".to_owned(),
            }
        );
        self.expect_whole()
    }

    #[track_caller]
    pub fn expect_whole(&self) -> &Self {
        assert_eq!(self.end, End::Whole, "{self:?}");
        self
    }

    #[track_caller]
    pub fn expect_cut(&self) -> &Self {
        assert_eq!(self.end, End::Cut, "{self:?}");
        self
    }

    #[track_caller]
    pub fn expect_reusable(&self) -> &Self {
        assert!(self.reusable, "the connection should stay usable: {self:?}");
        self
    }

    #[track_caller]
    pub fn expect_within(&self, limit: Duration) -> &Self {
        assert!(self.took <= limit, "took {:?}, allowed are {limit:?}: {self:?}", self.took);
        self
    }

    /// The target's own answer, labelled as such.
    #[track_caller]
    pub fn expect_granted(&self, status: u16) -> &Self {
        self.expect_status(status)
            .expect_header("requestrocket-proxy-code", "proxy-access-granted")
            .expect_header("requestrocket-proxy-message", "Proxy authentication successful")
            .expect_no_header("proxy-status")
            .expect_whole()
    }

    /// An answer that the edge wrote itself: every mark of one, its code, its message and its RFC 9209 error.
    #[track_caller]
    pub fn expect_refusal(&self, status: u16, code: &str, message: &str, error: &str) -> &Self {
        self.expect_refusal_head(status, code, message, error);
        let body = self.json();
        for field in ["type", "title", "detail"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "`{field}` is missing: {self:?}");
        }
        assert_eq!(body["status"], status, "{self:?}");
        assert_eq!(body["code"], code, "{self:?}");
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        self
    }

    /// The same without its body, as a HEAD request gets it.
    #[track_caller]
    pub fn expect_refusal_head(&self, status: u16, code: &str, message: &str, error: &str) -> &Self {
        self.expect_status(status)
            .expect_whole()
            .expect_header("requestrocket-proxy-code", code)
            .expect_header("requestrocket-proxy-message", message)
            .expect_header("content-type", "application/problem+json")
            .expect_header("cache-control", "no-store")
            .expect_proxy_error(error);
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()), "{self:?}");
        assert!(self.header("date").is_some(), "{self:?}");
        assert_eq!(self.header("server"), None, "{self:?}");
        self
    }

    /// The class of answers behind which nobody can tell a proxy that does not exist from a wrong credential.
    #[track_caller]
    pub fn expect_denied(&self) -> &Self {
        self.expect_refusal(403, "proxy-access-denied", "Invalid proxy credential", "http_request_denied")
    }

    /// A 502 because of `what`: dns, connect, tls or protocol.
    #[track_caller]
    pub fn expect_unreachable(&self, what: &str, error: &str) -> &Self {
        self.expect_refusal(502, "proxy-access-granted", &format!("Target could not be reached: {what}"), error)
    }

    /// The error of RFC 9209.
    #[track_caller]
    pub fn expect_proxy_error(&self, error: &str) -> &Self {
        let value = self.header("proxy-status").unwrap_or_else(|| panic!("no `proxy-status`: {self:?}"));
        let parameter = value.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("error="));
        assert_eq!(parameter, Some(error), "{self:?}");
        self
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "\n{} {} ({:?} after {:?})", self.version, self.status, self.end, self.took)?;
        for (name, value) in self.headers.iter().chain(&self.trailers) {
            writeln!(f, "{name}: {value}")?;
        }
        let shown = &self.body[..self.body.len().min(400)];
        writeln!(f, "\n[{} bytes] {}", self.body.len(), String::from_utf8_lossy(shown))
    }
}
