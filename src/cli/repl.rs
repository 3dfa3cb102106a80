//! `onced repl`: a conversation with a server, with history and completion of verbs.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::hint::Hinter;
use rustyline::{Context, Editor, Helper, Highlighter, Validator};

use super::ServerArgs;
use super::remote::{Remote, ReplyText};
use crate::command::lookup_line;
use crate::command::spec::{Home, takes_body, verbs};

/// Talk to a server line by line
#[derive(Debug, clap::Args)]
pub(crate) struct ReplArgs {
    #[command(flatten)]
    at: ServerArgs,
}

pub(crate) fn run(args: &ReplArgs) -> anyhow::Result<ExitCode> {
    let mut remote = Remote::connect(&args.at.server)?;
    if !std::io::stdin().is_terminal() {
        for line in std::io::stdin().lock().split(b'\n') {
            if !exchange(&mut remote, &line?)? {
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
                if !exchange(&mut remote, line.as_bytes())? {
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
fn exchange(remote: &mut Remote, line: &[u8]) -> anyhow::Result<bool> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(true);
    }
    if announces_body(line) {
        println!("here a body stands in the line, in the place of LEN: BODY \"like this\"");
        return Ok(true);
    }
    let ReplyText { head, rows } = remote.request(line)?;
    let mut out = std::io::stdout().lock();
    for text in std::iter::once(&head).chain(&rows) {
        out.write_all(text)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(head != b"BYE")
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
