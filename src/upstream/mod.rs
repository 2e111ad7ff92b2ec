//! The way to a target: its addresses ([`dns`]), which of them it may have ([`address`]), and the peer that Pingora
//! connects to ([`peer`]); the pace of an upload ([`pacing`]).

pub mod address;
pub mod dns;
pub mod pacing;
pub mod peer;
