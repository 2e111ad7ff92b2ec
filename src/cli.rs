//! The command line: verbs, their output, and exit codes after `sysexits.h`.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroizing;

use crate::config::{Document, Loader, schema};
use crate::secret::Digest;
use crate::server::{Daemon, Unserved};
use crate::{demo, logging, server};

/// `EX_USAGE`: the command line makes no sense.
const USAGE: u8 = 64;
/// `EX_CONFIG`: the configuration does not hold.
const CONFIG: u8 = 78;

/// Credential-swapping edge API proxy: checks a proxy credential, puts the target's in its place, and labels every answer.
#[derive(Parser)]
#[command(name = "requestrocket-edge", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    config: ConfigPath,
}

#[derive(clap::Args)]
struct ConfigPath {
    /// The main configuration file
    #[arg(
        short,
        long = "config",
        value_name = "FILE",
        env = "REQUESTROCKET_EDGE_CONFIG",
        default_value = "conf/edge.yaml",
        global = true
    )]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve until TERM (drains) or INT (at once); HUP reloads. The default
    Serve,
    /// Check the configuration: silent and 0 when valid, every problem on stderr and 78 when not
    Check {
        /// Print what takes effect: fragments merged, defaults filled in, secrets masked
        #[arg(long)]
        show: bool,
    },
    /// Print a JSON Schema of the configuration, for editors
    Schema {
        /// Of a fragment, instead of the main file
        #[arg(long)]
        fragment: bool,
    },
    /// Read a secret from stdin and print the sha256 to configure
    Digest,
    /// Try it: a small target, sample proxies, and the commands to call them
    Demo {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS", default_value = demo::ADDRESS)]
        listen: SocketAddr,
    },
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _ = error.print(); // there is nobody else to tell
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    let config = &arguments.config.config;
    match arguments.verb.unwrap_or(Verb::Serve) {
        Verb::Serve => serve(config),
        Verb::Check { show: false } => check(config),
        Verb::Check { show: true } => show(config),
        Verb::Schema { fragment: false } => print(&schema(Document::Main)),
        Verb::Schema { fragment: true } => print(&schema(Document::Fragment)),
        Verb::Digest => digest(),
        Verb::Demo { listen } => started(demo::run(listen)),
    }
}

fn serve(config: &Path) -> ExitCode {
    logging::start();
    seal_memory();
    started(Daemon::prepare(Loader::new(config)).and_then(|daemon| {
        daemon.warnings().iter().for_each(|warning| log::warn!("{warning}"));
        daemon.serve()
    }))
}

/// No core dump and no debugger of the same user may read the secrets in memory; the unit says so too (LimitCORE=0). Before
/// anything is read. The daemon itself still reads what it needs of `/proc/self`, as any user, and a successor, which is
/// dumpable again after its `exec`, does the same. `/proc/PID/environ` is then for root alone, with secrets from the
/// environment in it.
fn seal_memory() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let sealed = setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = sealed {
        log::warn!("memory stays readable for debuggers and core dumps: {error}");
    }
}

fn started(outcome: Result<(), Unserved>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Unserved::Config(problems)) => {
            complain(&format_args!("{problems}\n"));
            ExitCode::from(CONFIG)
        }
        Err(Unserved::Other(text)) => {
            complain(&format_args!("requestrocket-edge: {text}\n"));
            ExitCode::FAILURE
        }
    }
}

fn check(config: &Path) -> ExitCode {
    match server::check(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            complain(&format_args!("{problems}\n"));
            ExitCode::from(CONFIG)
        }
    }
}

fn show(config: &Path) -> ExitCode {
    match Loader::new(config).show() {
        Ok(text) => print(&text),
        Err(problems) => {
            complain(&format_args!("{problems}\n"));
            ExitCode::from(CONFIG)
        }
    }
}

/// Prints what was asked for. A reader that has gone (`| head`) has seen enough.
fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format_args!("requestrocket-edge: cannot write to standard output: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn digest() -> ExitCode {
    let mut secret = Zeroizing::new(Vec::new());
    if let Err(error) = io::stdin().lock().read_to_end(&mut secret) {
        complain(&format_args!("requestrocket-edge: cannot read standard input: {error}\n"));
        return ExitCode::FAILURE;
    }
    // As for a secret in a file: the newline that `echo` and editors add is not part of it.
    let secret = secret.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line)).unwrap_or(&secret);
    if secret.is_empty() {
        complain(
            &"requestrocket-edge: no secret on standard input; write: printf %s SECRET | requestrocket-edge digest\n",
        );
        return ExitCode::from(USAGE);
    }
    match writeln!(io::stdout().lock(), "{}", Digest::of(secret).to_hex()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &dyn std::fmt::Display) {
    let _ = write!(io::stderr().lock(), "{text}"); // there is nobody else to tell
}
