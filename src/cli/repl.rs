//! `onced repl`: a conversation with a server, with history and completion of verbs.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::hint::Hinter;
use rustyline::{Context, Editor, Helper, Highlighter, Validator};

use super::ServerArgs;
use super::input::without_mark;
use super::remote::{Remote, ReplyText};
use crate::command::spec::{Home, takes_body, verbs};
use crate::command::{Begin, Command, lookup_line};
use crate::limits::{Limits, WAIT_MS_MAX};
use crate::wire::{Decoded, Decoder};

/// Talk to a server line by line
#[derive(Debug, clap::Args)]
pub(crate) struct ReplArgs {
    #[command(flatten)]
    at: ServerArgs,
}

pub(crate) fn run(args: &ReplArgs) -> anyhow::Result<ExitCode> {
    let mut remote = Remote::connect(&args.at)?;
    if !std::io::stdin().is_terminal() {
        for (number, line) in std::io::stdin().lock().split(b'\n').enumerate() {
            let line = line?;
            let line = if number == 0 {
                without_mark(&line)
            } else {
                &line
            };
            if !exchange(&mut remote, line, args.at.timeout)? {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "onced at {}; HELP lists the verbs, QUIT leaves",
        args.at.server
    );
    let mut editor = Editor::<Verbs, _>::new()?;
    editor.set_helper(Some(Verbs));
    loop {
        match editor.readline("onced> ") {
            Ok(line) => {
                let _a_full_history_drops_the_oldest = editor.add_history_entry(&line);
                if !exchange(&mut remote, line.as_bytes(), args.at.timeout)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks and shows the answer; false once the server has said goodbye.
fn exchange(remote: &mut Remote, line: &[u8], timeout: Duration) -> anyhow::Result<bool> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(true);
    }
    if announces_body(line) {
        println!("here a body stands in the line, in the place of LEN: BODY \"like this\"");
        return Ok(true);
    }
    remote.wait_at_most(timeout + asked_wait(line))?;
    let ReplyText { head, rows } = remote.request(line)?;
    let mut out = std::io::stdout().lock();
    for text in std::iter::once(&head).chain(&rows) {
        out.write_all(text)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(head != b"BYE")
}

/// How long the request may have its reply held.
fn asked_wait(line: &[u8]) -> Duration {
    // The server's own bound is not known here; what is over it is refused there.
    let limits = Limits {
        wait_max_ms: WAIT_MS_MAX + 1,
        ..Limits::DEFAULT
    };
    let line = [line, b"\n"].concat();
    let mut decoder = Decoder::default();
    let Decoded::Request { args, .. } = decoder.next(&line, &limits) else {
        return Duration::ZERO;
    };
    let verb = lookup_line(args.verb());
    let ms = match verb.map(|verb| verb.spec().parse(&args, &limits)) {
        Some(Ok(Command::Begin(Begin { wait_ms, .. }))) => wait_ms,
        // Not said: as long as the server lets it be, which is this unless it is set otherwise.
        Some(Ok(Command::WaitFor { timeout_ms, .. })) if timeout_ms > WAIT_MS_MAX => {
            Limits::DEFAULT.wait_max_ms
        }
        Some(Ok(Command::WaitFor { timeout_ms, .. })) => timeout_ms,
        _ => 0,
    };
    Duration::from_millis(ms)
}

/// Whether a body is to follow, which a person at a prompt cannot send.
fn announces_body(line: &[u8]) -> bool {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let takes_one = words.next().is_some_and(takes_body);
    takes_one
        && words
            .nth_back(1)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"LEN"))
}

/// Completes verbs, and hints at the words behind them.
#[derive(Helper, Highlighter, Validator)]
struct Verbs;

impl Completer for Verbs {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line[..at].to_ascii_uppercase();
        let native = verbs()
            .map(super::super::command::spec::Verb::spec)
            .filter(|spec| spec.home == Home::Native);
        Ok((
            0,
            native
                .filter(|spec| spec.name.starts_with(&typed))
                .map(|spec| format!("{} ", spec.name))
                .collect(),
        ))
    }
}

impl Hinter for Verbs {
    type Hint = String;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        let verb = line.strip_suffix(' ')?;
        lookup_line(verb.as_bytes()).map(|verb| verb.spec().usage.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_its_reply_is_waited_for() {
        for (line, seconds) in [
            ("SEEN a 1h", 0),
            ("BEGIN a", 0),
            ("begin a LEASE 5m wait 30s", 30),
            ("WAIT a TIMEOUT 5m", 300),
            ("WAIT a", 60),
            ("WAIT", 0),
            ("WAIT a TIMEOUT soon", 0),
        ] {
            assert_eq!(asked_wait(line.as_bytes()).as_secs(), seconds, "{line}");
        }
    }
}
