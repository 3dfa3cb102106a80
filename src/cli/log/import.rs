//! `onced log import`: what `onced log dump` wrote, into a running server.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::ServerArgs;
use crate::cli::import::{self, Format, Source};

/// An example, for `--help`.
const EXAMPLE: &str =
    "  onced log dump --live /var/lib/onced | onced log import --server 10.0.0.7:6623";

/// Load what 'onced log dump --live' wrote into a running server
///
/// Reads JSON lines as 'onced log dump --help' describes them, from a file or standard input. Keys go to
/// the namespaces they come from, with their deadlines and values. The server may be in use: a key that
/// it has already keeps its value, and the later of both deadlines holds. Running it again changes
/// nothing. Namespaces that the server does not have are made with the properties of the dump; those that
/// it has keep theirs, with a line on standard error where they differ.
///
/// What cannot be carried over: an idempotency record, which is refused; a removal, so a dump without --live is refused where it has some; how far
/// a namespace's memory reached (say NS SET name COVERED once all is loaded); the very millisecond of a
/// key with a fingerprint, whose window ends as much later as its request takes to be executed; and a
/// deadline beyond the namespace's longest ttl, which is cut to that and counted.
///
/// Ends with counts on standard output. Exit status 1 if lines were refused, each of the first named on
/// standard error; 2 if the server or the file is not there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub(super) struct LogImportArgs {
    /// The dump; without it, or with -, standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    at: ServerArgs,
}

pub(super) fn run(args: &LogImportArgs) -> anyhow::Result<ExitCode> {
    import::load(&Source {
        file: args.file.as_deref(),
        server: &args.at,
        namespace: None,
        ttl_ms: None,
        format: Some(Format::Json),
    })
}
