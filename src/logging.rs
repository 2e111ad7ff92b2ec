//! The daemon's own log lines: `log` and `env_logger` on standard error, at `info` unless `RUST_LOG` says otherwise.
//!
//! `error`: wake someone. `warn`: look tomorrow. `info`: an operator's action finished. Nothing per request above `debug`.

use env_filter::{Builder as FilterBuilder, Filter};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Log targets of this crate.
const OURS: &str = "requestrocket_edge";
/// Log targets that tell, at any level, of what single requests and connections come to.
const PASSING: [&str; 3] = ["pingora_proxy", "pingora_core::apps", "pingora_core::connectors"];

/// Starts logging. Call once.
pub fn start() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = FilterBuilder::new().parse(&wanted).build();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Trace).format_target(false);
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        builder.write_style(env_logger::WriteStyle::Never);
    }
    // Nothing of ours is below debug, and Pingora unwraps what is not UTF-8 in a line of its trace.
    log::set_max_level(filter.filter().min(LevelFilter::Debug));
    let logger = Discreet { logger: builder.build(), filter };
    if log::set_boxed_logger(Box::new(logger)).is_err() {
        log::warn!("logging was started twice");
    }
    std::panic::set_hook(Box::new(|panic| {
        // A message that was composed at run time may quote what it stumbled over; a literal cannot.
        let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!("panic at {place}: {text}. Please report this line.");
    }));
}

/// Keeps libraries from telling what passes through: below `warn`, Pingora prints whole request headers, and with them
/// credentials, whatever `RUST_LOG` asks for.
struct Discreet {
    logger: env_logger::Logger,
    filter: Filter,
}

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with(OURS);
        // To Pingora every stranger who hangs up within a header is an error, and so is a kept connection to a target that
        // is asked for in the moment in which it is put back.
        let strangers = PASSING.iter().any(|passing| metadata.target().starts_with(passing));
        (ours || metadata.level() <= Level::Warn && !strangers) && self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && self.filter.matches(record) {
            self.logger.log(record);
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_library_tells_what_passes_through() {
        let filter = FilterBuilder::new().parse("trace").build();
        let logger = Discreet { logger: env_logger::Builder::new().build(), filter };
        for (target, level, told) in [
            ("requestrocket_edge::reload", Level::Info, true),
            ("requestrocket_edge::proxy", Level::Debug, true),
            ("pingora_core::services::listening", Level::Error, true),
            ("pingora_core::services::listening", Level::Info, false),
            ("pingora_core::connectors", Level::Error, false),
            ("pingora_core::apps", Level::Error, false),
            ("pingora_proxy", Level::Error, false),
        ] {
            let metadata = Metadata::builder().target(target).level(level).build();
            assert_eq!(logger.enabled(&metadata), told, "{target} {level}");
        }
    }
}
