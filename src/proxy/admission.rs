//! The gates in their order: path, proxy, credential, account, rules, size, rate limit. Each one hands the next what it
//! needs, and only all of them together make an [`Admitted`], without which nothing is forwarded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use pingora::http::RequestHeader;

use crate::config::model::{Billing, ClientLimits, ProxyCredential};
use crate::refusal::{RateLimited, Refusal};
use crate::request::credential::{self, Presented};
use crate::request::jwt::Claims;
use crate::request::rate_limit::{self, Clock, Limiter, Permit};
use crate::request::route::{self, Malformed, Route};
use crate::request::rules::{self, Facts};
use crate::request::{query, rewrite};
use crate::snapshot::{Entry, Snapshot};

const LOW_BUDGET: &str = "Low budget - please add a valid payment method to continue using the API";
const NEAR_LIMIT: &str = "Approaching rate limit threshold";

/// Proof that a request passed every gate, with what the rest of its way needs.
pub struct Admitted {
    pub entry: Arc<Entry>,
    pub credential: Arc<ProxyCredential>,
    pub limiter: Arc<Limiter>,
    pub permit: Permit,
    /// `requestrocket-proxy-warning`, where there is one.
    pub warning: Option<HeaderValue>,
    /// The request target to send.
    pub line: Bytes,
    _passed: Passed,
}

/// Only the gates make one.
struct Passed;

/// A refusal, with what was known by then.
pub struct Refused {
    pub refusal: Refusal,
    /// Set once the credential was verified.
    pub known: Option<Known>,
    pub warning: Option<HeaderValue>,
}

/// Whose request it is: a verified credential, and the proxy it belongs to.
pub struct Known {
    pub credential: Arc<ProxyCredential>,
    pub entry: Arc<Entry>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, known: None, warning: None }
    }
}

/// Takes a request through the gates.
pub fn admit(snapshot: &Snapshot, request: &RequestHeader, clock: Clock, now: SystemTime) -> Result<Admitted, Refused> {
    check_header(&request.headers, &snapshot.edge.limits)?;
    let route = route::parse(origin_form(request.raw_path())).map_err(malformed)?;
    check_method(&request.method)?;
    let stripped = query::split(route.query);
    let query = stripped.query.as_deref();
    let entry = snapshot.proxy(route.proxy_id);

    // One path for a proxy that does not exist, one that is switched off and a credential that is wrong: the same work, the
    // same answer.
    let authorization = request.headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let presented = Presented::from_request(authorization, stripped.credential);
    let verified = credential::verify(entry.map(|entry| &entry.keyring), &presented, now);
    let (Some(entry), Some(verified)) = (entry.filter(|entry| entry.proxy.active), verified) else {
        return Err(Refusal::CredentialDenied.into());
    };

    let credential = verified.credential;
    let low_budget = credential.billing == Billing::LowBudget;
    let refused = |refusal| Refused {
        refusal,
        known: Some(Known { credential: Arc::clone(credential), entry: Arc::clone(entry) }),
        warning: warning(low_budget, false),
    };
    if credential.billing == Billing::Suspended {
        return Err(refused(Refusal::BillingSuspended));
    }
    check_rules(entry, credential, request, &route, query, verified.claims.as_ref()).map_err(refused)?;
    check_size(&request.headers, entry.proxy.max_request_body).map_err(refused)?;

    let limiter = entry.limiter(credential);
    let limit = &credential.rate_limit;
    let permit = limiter.acquire(limit, clock).map_err(|over| {
        refused(Refusal::RateLimited(Box::new(RateLimited {
            retry_after: over.retry_after_seconds(),
            budget: limiter.budget(limit, clock).to_string(),
            policy: rate_limit::policy_header(limit),
            over,
        })))
    })?;
    let proxy = &entry.proxy;
    Ok(Admitted {
        line: rewrite::request_target(&proxy.target, &proxy.target_credential.injection, route.target_path, query),
        warning: warning(low_budget, permit.is_approaching_limit()),
        credential: Arc::clone(credential),
        limiter: Arc::clone(limiter),
        entry: Arc::clone(entry),
        permit,
        _passed: Passed,
    })
}

/// The path and query of a request target: an absolute form (RFC 9112 section 3.2.2) names a host first.
pub(super) fn origin_form(raw: &[u8]) -> &[u8] {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| raw.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else { return raw };
    let rest = &raw[scheme.len()..];
    let path = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    &rest[path..]
}

fn malformed(malformed: Malformed) -> Refused {
    match malformed {
        Malformed::NotApi => Refusal::NotApi,
        ambiguous => Refusal::MalformedPath(ambiguous.public_text()),
    }
    .into()
}

fn check_header(headers: &HeaderMap, limits: &ClientLimits) -> Result<(), Refused> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > limits.max_headers || bytes > limits.max_header_bytes {
        return Err(Refusal::HeaderTooLarge.into());
    }
    Ok(())
}

fn check_method(method: &Method) -> Result<(), Refused> {
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS | Method::HEAD => {
            Ok(())
        }
        _ => Err(Refusal::MethodNotAllowed.into()),
    }
}

fn check_rules(
    entry: &Entry,
    credential: &ProxyCredential,
    request: &RequestHeader,
    route: &Route<'_>,
    query: Option<&[u8]>,
    claims: Option<&Claims>,
) -> Result<(), Refusal> {
    let proxy = &entry.proxy;
    let scopes = [&credential.scope, &proxy.target_credential.scope, &proxy.scope, &proxy.target.scope];
    let facts = Facts { method: &request.method, path: &route.decoded_path, headers: &request.headers, query, claims };
    rules::evaluate(&scopes, &facts).map_err(|denied| Refusal::RuleDenied(denied.id().into()))
}

/// A length that is announced is judged before anything is sent; one that is not is counted on the way.
fn check_size(headers: &HeaderMap, limit: u64) -> Result<(), Refusal> {
    match announced_length(headers) {
        Some(length) if length > limit => Err(Refusal::RequestTooLarge(limit)),
        _ => Ok(()),
    }
}

/// `Content-Length` in bytes, where there is one.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn warning(low_budget: bool, near_limit: bool) -> Option<HeaderValue> {
    let text: Cow<'static, str> = match (low_budget, near_limit) {
        (false, false) => return None,
        (true, false) => LOW_BUDGET.into(),
        (false, true) => NEAR_LIMIT.into(),
        (true, true) => format!("{LOW_BUDGET}; {NEAR_LIMIT}").into(),
    };
    HeaderValue::from_str(&text).ok()
}
