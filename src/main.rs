//! Arguments in, exit code out.

use std::process::ExitCode;

/// Much allocation on many threads for years: glibc's allocator lets resident memory grow under that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    requestrocket_edge::cli::run()
}
