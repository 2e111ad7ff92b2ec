//! What Pingora reports, in the terms of the contract: who is at fault, and what the client is told.

use std::time::Duration;

use pingora_core::{Error, ErrorSource, ErrorType};

use crate::refusal::{Refusal, TargetFault, TimeoutPhase};
use crate::response::hold::Halt;

/// Pingora's name for a body that ends before its end.
const CUT_BODY: &str = "PrematureBodyEnd";
/// How Pingora words rustls's verdict over a certificate: it keeps the text and drops the error.
const BAD_CERTIFICATE: &str = "invalid peer certificate";

/// What there is to know about an exchange that failed.
pub struct Failed<'a> {
    pub error: &'a Error,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub max_response_body: u64,
    /// Whether the header of the target's final answer had arrived.
    pub answered: bool,
}

/// How the exchange ended.
#[derive(Debug)]
pub enum End {
    /// The edge answers.
    Refused(Refusal),
    /// The answer is out; the client was released while it was still sending.
    AnsweredEarly,
    /// Nobody is left to answer.
    ClientGone,
}

/// Explains a failure.
pub fn explain(failed: &Failed<'_>) -> End {
    let refusal = match Halt::of(failed.error) {
        Some(Halt::AnsweredEarly) => return End::AnsweredEarly,
        Some(Halt::Deadline | Halt::Idle) => Refusal::TargetTimeout(TimeoutPhase::Response, failed.timeout),
        Some(Halt::ClientStalled) => Refusal::ClientStalled,
        Some(Halt::TooLarge) => Refusal::ResponseTooLarge(failed.max_response_body),
        Some(Halt::NoMemory) => Refusal::AtCapacity,
        None => match failed.error.esource() {
            ErrorSource::Upstream => target_failed(failed),
            ErrorSource::Downstream => return client_failed(failed.error),
            ErrorSource::Internal | ErrorSource::Unset => Refusal::Fault,
        },
    };
    End::Refused(refusal)
}

fn target_failed(failed: &Failed<'_>) -> Refusal {
    use ErrorType as E;
    let fault = match failed.error.etype() {
        E::ConnectTimedout | E::TLSHandshakeTimedout => {
            return Refusal::TargetTimeout(TimeoutPhase::Connect, failed.connect_timeout);
        }
        E::ReadTimedout | E::WriteTimedout => {
            return Refusal::TargetTimeout(TimeoutPhase::Response, failed.timeout);
        }
        E::ConnectRefused => TargetFault::Refused,
        E::ConnectNoRoute => TargetFault::Unroutable,
        E::InvalidCert => TargetFault::Certificate,
        E::TLSHandshakeFailure | E::TLSWantX509Lookup | E::HandshakeError => tls_fault(failed.error),
        E::ConnectError | E::SocketError | E::BindError | E::ConnectProxyFailure => TargetFault::Unavailable,
        // A body that ends before its end was announced, and a connection that ends before an answer.
        E::ConnectionClosed | E::ReadError | E::WriteError | E::H2Error if failed.answered => TargetFault::Incomplete,
        E::Custom(kind) if *kind == CUT_BODY => TargetFault::Incomplete,
        E::ConnectionClosed | E::ReadError | E::WriteError => TargetFault::Terminated,
        _ => TargetFault::Protocol,
    };
    Refusal::TargetFailed(fault)
}

/// rustls reports a certificate that does not hold as a failed handshake; only the text tells.
fn tls_fault(error: &Error) -> TargetFault {
    if error.to_string().contains(BAD_CERTIFICATE) { TargetFault::Certificate } else { TargetFault::Tls }
}

fn client_failed(error: &Error) -> End {
    use ErrorType as E;
    match error.etype() {
        E::ConnectionClosed | E::ReadError | E::WriteError | E::WriteTimedout | E::H2Error => End::ClientGone,
        E::ReadTimedout => End::Refused(Refusal::ClientStalled),
        _ => End::Refused(Refusal::MalformedRequest),
    }
}
