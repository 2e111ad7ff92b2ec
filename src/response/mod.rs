//! The answer on its way back: held or streamed ([`hold`]), labelled and cleaned ([`headers`]).

pub mod budget;
pub mod headers;
pub mod hold;
