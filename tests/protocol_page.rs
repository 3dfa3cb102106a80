//! protocol.md against the code: its sessions are replayed against a real server, its tables
//! are compared with the rows, codes, settings and constants that they repeat.
//!
//! A ` ```session ` block is spoken in the line protocol, a ` ```resp-session ` block in RESP,
//! typed and shown as by redis-cli; each has a server of its own, with a log where `logged`
//! follows (` ```session logged `). Lines with `> ` are sent, several in a row at once; the others
//! are expected. `<int>` and `<ms>` stand for digits, `<text>` for anything; `...` for the rest of
//! a `ROWS` reply; `(closed)` for the end of the connection; `# 80 ms later` waits; `# the server is
//! started again` does that, on the same directory; any other line with `# ` is for the reader.

#![allow(clippy::unwrap_used, reason = "test code: a panic is the report")]

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use common::{Client, TestServer};
use onced::command::spec::{Home, Spec, Verb, verbs};
use onced::command::{Code, Error, Reply};
use onced::config::RawSettings;
use onced::limits;
use onced::wire::Dialect;
use regex::Regex;

const PAGE: &str = include_str!("../protocol.md");

/// Fewer would mean that the blocks are no longer found.
const SESSIONS_MIN: usize = 25;

/// A reply that does not come by then never will.
const REPLY_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn every_session_of_the_pages_is_what_a_server_says() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).unwrap_or_default();
    let mut sessions = sessions("protocol.md", PAGE);
    sessions.extend(self::sessions("README.md", &readme));
    assert!(
        sessions.len() >= SESSIONS_MIN,
        "only {} sessions were found",
        sessions.len()
    );
    let failures: Vec<_> = sessions
        .iter()
        .filter_map(|session| session.replay().err())
        .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn every_verb_is_shown_in_a_session() {
    let mut shown = BTreeSet::new();
    for session in sessions("protocol.md", PAGE) {
        for (_, line) in &session.lines {
            let verb = line
                .strip_prefix("> ")
                .and_then(|sent| sent.split(' ').next());
            if let Some(verb) = verb {
                shown.insert((session.is_resp, verb.to_ascii_uppercase()));
            }
        }
    }
    let missing: Vec<_> = verbs()
        .map(Verb::spec)
        .filter(|spec| !shown.contains(&(spec.home == Home::Redis, spec.name.to_owned())))
        .map(|spec| spec.name)
        .collect();
    assert!(missing.is_empty(), "no session shows {missing:?}");
}

#[test]
fn the_tables_of_verbs_and_commands_are_the_command_table() {
    assert_table("verbs", &command_table("verb", Home::Native));
    assert_table("redis", &command_table("command", Home::Redis));
}

#[test]
fn the_table_of_codes_is_the_codes() {
    let wanted: Vec<_> = CODES
        .iter()
        .filter(|code| is_on_the_page(**code))
        .map(|&code| {
            [Dialect::Line, Dialect::Resp(3)]
                .map(|dialect| quoted(&first_words(code, dialect)))
                .into()
        })
        .collect();
    assert_columns("codes", &wanted);
}

#[test]
fn the_table_of_settings_is_the_settings() {
    let settings = RawSettings::default().check().unwrap();
    let help = RawSettings::augment_args(clap::Command::new("serve"));
    let wanted: Vec<_> = settings
        .rows()
        .into_iter()
        .filter(|(name, _)| !["listen", "insecure", "workers", "log"].contains(name))
        .map(|(name, value)| {
            let value = value.trim_matches('"');
            let default = default_in_help(&help, name);
            // What is measured on this machine has no default that could be printed as a value.
            assert!(
                name == "max-memory" || default == value,
                "{name}: --help says {default}, the settings say {value}"
            );
            vec![quoted(name), quoted(&default), range(name)]
        })
        .collect();
    assert_columns("settings", &wanted);
}

#[test]
fn the_table_of_constants_is_the_constants() {
    let constants = [
        (
            "a namespace's name",
            limits::NAMESPACE_NAME_BYTES_MAX as u64,
        ),
        ("a fingerprint", limits::FINGERPRINT_DIGITS_MAX as u64),
        ("an `OWNER`", limits::OWNER_BYTES_MAX as u64),
        ("`AT` ahead of the clock", limits::AT_AHEAD_MAX_MS),
        (
            "a body or RESP request that is skipped",
            limits::DISCARD_BYTES_MAX as u64,
        ),
        (
            "elements of a RESP request",
            limits::RESP_ELEMENTS_MAX as u64,
        ),
        ("the highest `SELECT`", limits::SELECT_MAX),
        (
            "a connection's or library's name",
            limits::CLIENT_NAME_BYTES_MAX as u64,
        ),
        (
            "requests queued by `MULTI`",
            limits::TRANSACTION_BYTES_MAX as u64,
        ),
        ("what the commands of one `EXEC` take", limits::EXEC_MS_MAX),
        ("a glob pattern", limits::PATTERN_BYTES_MAX as u64),
        (
            "patterns of one `CONFIG GET`",
            limits::CONFIG_PATTERNS_MAX as u64,
        ),
        (
            "sections that one `INFO` names",
            limits::INFO_SECTIONS_MAX as u64,
        ),
        ("a script", limits::SCRIPT_BYTES_MAX as u64),
        (
            "scripts that `EVALSHA` knows",
            limits::SCRIPTS_KNOWN_MAX as u64,
        ),
        (
            "keys of a namespace that `KEYS` looks through",
            limits::KEYS_COMMAND_KEYS_MAX,
        ),
        (
            "keys of one script, or of one `MSETNX`",
            limits::TOGETHER_KEYS_MAX as u64,
        ),
        ("draining", limits::DRAIN_MS),
        (
            "connections told that there are too many, at a time",
            limits::REFUSALS_MAX as u64,
        ),
        (
            "between two syncs of the log, under `everysec`",
            limits::LOG_SYNC_EVERY_MS,
        ),
        (
            "a sync of the log, under `everysec`",
            limits::LOG_SYNC_LATE_MS,
        ),
        (
            "a change that was made and lacks space to be written",
            limits::LOG_STUCK_MS,
        ),
        (
            "between two looks for space on a full disk",
            limits::LOG_RETRY_MS,
        ),
        (
            "changes that wait for the log",
            limits::LOG_PENDING_BYTES_MAX as u64,
        ),
        (
            "a connection has the room for a long request, while memory is short and others wait",
            limits::INTAKE_MS,
        ),
    ];
    let wanted: Vec<_> = constants
        .iter()
        .map(|(name, value)| vec![(*name).to_owned(), value.to_string()])
        .collect();
    assert_columns("constants", &wanted);
}

#[test]
fn the_tables_of_statistics_are_the_rows_that_are_told() {
    let directory = DataDirectory::new();
    let server = directory.serve();
    let mut client = ready_client(&server);
    assert_eq!(client.ask("PING"), "PONG");
    for (table, request) in [("ns-info", "NS INFO default"), ("stats", "STATS")] {
        let rows = client.ask_all(request);
        let mut wanted: Vec<Vec<String>> = Vec::new();
        for row in &rows[1..] {
            let name = row.split(' ').next().unwrap();
            let name = quoted(&name.replace("verb_ping_", "verb_<verb>_"));
            // `NS INFO`, asked first, has its own rows of the same form.
            if !name.starts_with("`verb_ns_") {
                wanted.push(vec![name]);
            }
        }
        assert_columns(table, &wanted);
    }
}

/// What no session can show: bytes that are no lines, and who closes when.
#[test]
fn a_conversation_ends_as_the_page_says() {
    const HALF_CLOSE: bool = true;
    let server = TestServer::start();
    let too_much = format!("NO LEN {}\nPING\n", limits::DISCARD_BYTES_MAX + 1);
    let too_long = format!(
        "PING {}\nPING\n",
        "x".repeat(limits::Limits::DEFAULT.request_bytes_max)
    );
    let cases: [(&[u8], bool, &str); 12] = [
        (
            b"\x16\x03\x01\x02\x00",
            false,
            "ERR SYNTAX this looks like TLS, which is not spoken on this port\n",
        ),
        (
            b"PING\nPING",
            HALF_CLOSE,
            "PONG\nERR SYNTAX the last request was not finished and was not executed\n",
        ),
        (b"PING\r\n\n \t\nPING\n", HALF_CLOSE, "PONG\nPONG\n"),
        (b"QUIT\nPING\n", false, "BYE\n"),
        (
            b"NO LEN 4\nPINGPING\n",
            false,
            "ERR UNKNOWN unknown verb 'NO'; HELP lists the verbs\nERR SYNTAX the body does not end where LEN said it would\n",
        ),
        (
            b"NO LEN 4\nPING\r\nPING\n",
            HALF_CLOSE,
            "ERR UNKNOWN unknown verb 'NO'; HELP lists the verbs\nPONG\n",
        ),
        (
            b"NO LEN four\nPING\n",
            false,
            "ERR UNKNOWN unknown verb 'NO'; HELP lists the verbs\n",
        ),
        (
            too_much.as_bytes(),
            false,
            "ERR UNKNOWN unknown verb 'NO'; HELP lists the verbs\n",
        ),
        (
            too_long.as_bytes(),
            false,
            "ERR TOOBIG the line is over 1048576 bytes\n",
        ),
        (
            b"PING\n*1\r\n",
            HALF_CLOSE,
            "PONG\nERR UNKNOWN unknown verb '*1'; HELP lists the verbs\n",
        ),
        (
            b"*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\nPING\r\n",
            false,
            "+PONG\r\n-ERR Protocol error: expected '*', got 'P'\r\n",
        ),
        (
            b"*1048577\r\n",
            false,
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
    ];
    for (sent, half_close, want) in cases {
        let mut client = server.connect();
        client.send(sent);
        if half_close {
            client.half_close();
        }
        let shown = sent[..sent.len().min(60)].escape_ascii();
        assert_eq!(client.rest(), want, "{shown}");
    }
}

/// One block of a page.
struct Session {
    file: String,
    /// The last number that stood where the page says `<token>`.
    token: RefCell<String>,
    is_resp: bool,
    is_logged: bool,
    /// Line numbers and lines.
    lines: Vec<(usize, String)>,
}

/// A data directory that goes away with its test.
struct DataDirectory(PathBuf);

impl DataDirectory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onced-page-{}-{count}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn serve(&self) -> TestServer {
        TestServer::with(|settings| {
            settings.data_dir = Some(self.0.clone());
            settings.log_segment = Some("1MiB".to_owned());
        })
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        let _the_system_clears_it_up_otherwise = fs::remove_dir_all(&self.0);
    }
}

/// A connection to a server that has read its log.
fn ready_client(server: &TestServer) -> Client {
    let client = server.connect();
    client.stream.set_read_timeout(Some(REPLY_WITHIN)).unwrap();
    while server.connect().ask("PING").starts_with("ERR LOADING") {
        sleep(Duration::from_millis(1));
    }
    client
}

fn sessions(file: &str, text: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut open: Option<Session> = None;
    for (number, line) in (1..).zip(text.lines()) {
        match (&mut open, line) {
            (None, "```session" | "```session logged" | "```resp-session") => {
                open = Some(Session {
                    file: file.to_owned(),
                    token: RefCell::default(),
                    is_resp: line.starts_with("```resp"),
                    is_logged: line.ends_with(" logged"),
                    lines: Vec::new(),
                });
            }
            (Some(_), "```") => sessions.extend(open.take()),
            (Some(session), _) => session.lines.push((number, line.to_owned())),
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "{file}: a session block is not closed");
    sessions
}

impl Session {
    /// Says all that is to be said; an error tells where and how the answer differs.
    fn replay(&self) -> Result<(), String> {
        let directory = self.is_logged.then(DataDirectory::new);
        let start = || {
            directory
                .as_ref()
                .map_or_else(TestServer::start, DataDirectory::serve)
        };
        let mut server = start();
        let mut client = ready_client(&server);
        let mut closed = false;
        let mut at = 0;
        while at < self.lines.len() {
            let first = at;
            while self.sent(at).is_some() {
                self.send(&mut client, at);
                at += 1;
            }
            if at == first {
                if self.lines[at].1 == "# the server is started again" {
                    drop(server);
                    server = start();
                    client = ready_client(&server);
                }
                self.wait(at);
                at += 1;
                continue;
            }
            let expected = at;
            while at < self.lines.len() && self.sent(at).is_none() && !self.is_remark(at) {
                at += 1;
            }
            // A reply that is shorter than the page says ends in a panic of the read; say where.
            let heard = catch_unwind(AssertUnwindSafe(|| self.hear(&mut client, expected, at)));
            closed |=
                heard.unwrap_or_else(|_| Err(self.differs(first, "no whole reply", "one")))?;
        }
        // Whatever was answered beyond what the page shows comes before this.
        if !closed {
            let end = if self.is_resp {
                client.call(&["ECHO", "the-end"])
            } else {
                client.ask("PING the-end")
            };
            if end.trim_start_matches('$') != "the-end" {
                return Err(self.differs(self.lines.len() - 1, &end, "the end of the session"));
            }
        }
        Ok(())
    }

    fn sent(&self, at: usize) -> Option<&str> {
        self.lines.get(at)?.1.strip_prefix("> ")
    }

    fn is_remark(&self, at: usize) -> bool {
        self.lines[at].1.starts_with("# ")
    }

    fn wait(&self, at: usize) {
        let (number, line) = &self.lines[at];
        assert!(
            line.starts_with("# "),
            "{}:{number}: answers to nothing: {line}",
            self.file
        );
        let later = Regex::new("^# ([0-9]+) ms later$").unwrap();
        if let Some(found) = later.captures(line) {
            sleep(Duration::from_millis(found[1].parse().unwrap()));
        }
    }

    fn send(&self, client: &mut Client, at: usize) {
        let request = self.sent(at).unwrap();
        let request = &request.replace("<token>", &self.token.borrow());
        if self.is_resp {
            let words = typed_words(request);
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            client.send(common::resp_request(&words));
        } else {
            client.send(format!("{request}\n"));
        }
    }

    /// Compares what comes with the lines from `from` to `to`; whether the connection is closed then.
    fn hear(&self, client: &mut Client, from: usize, to: usize) -> Result<bool, String> {
        let mut waiting: Vec<String> = Vec::new();
        let mut rows_left = 0_usize;
        for at in from..to {
            let wanted = &self.lines[at].1;
            if wanted == "(closed)" {
                return match client.try_line() {
                    None => Ok(true),
                    Some(more) => Err(self.differs(at, &more, wanted)),
                };
            }
            if wanted == "..." && !self.is_resp {
                (0..rows_left).for_each(|_| drop(client.line()));
                rows_left = 0;
                continue;
            }
            if waiting.is_empty() {
                waiting = if self.is_resp {
                    shown(client).lines().rev().map(str::to_owned).collect()
                } else {
                    vec![client.try_line().unwrap_or_else(|| "(closed)".to_owned())]
                };
            }
            let got = waiting.pop().unwrap_or_default();
            let Some(found) = pattern(wanted).captures(&got) else {
                return Err(self.differs(at, &got, wanted));
            };
            if let Some(token) = found.name("token") {
                token.as_str().clone_into(&mut self.token.borrow_mut());
            }
            rows_left = match got.strip_prefix("ROWS ") {
                Some(rows) => rows.parse().unwrap(),
                None => rows_left.saturating_sub(1),
            };
        }
        match waiting.pop() {
            Some(more) => Err(self.differs(to - 1, &more, "nothing more")),
            None => Ok(false),
        }
    }

    fn differs(&self, at: usize, got: &str, want: &str) -> String {
        let (file, number) = (&self.file, self.lines[at].0);
        format!("{file}:{number}:\n  got  {got}\n  want {want}")
    }
}

fn pattern(wanted: &str) -> Regex {
    // Redis's 'unknown command' ends in a space, which editors take away from the page.
    let pattern = regex::escape(wanted.trim_end())
        .replace("<token>", "(?<token>[0-9]+)")
        .replace("<int>", "[0-9]+")
        .replace("<ms>", "[0-9]+")
        .replace("<text>", ".+");
    Regex::new(&format!("^{pattern} ?$")).unwrap()
}

/// Words as a person types them for redis-cli: apart by blanks, quoted where they hold some.
fn typed_words(line: &str) -> Vec<String> {
    let word = Regex::new(r#""([^"]*)"|(\S+)"#).unwrap();
    word.captures_iter(line)
        .map(|found| found.get(1).or(found.get(2)).unwrap().as_str().to_owned())
        .collect()
}

/// One RESP reply as redis-cli shows it.
fn shown(client: &mut Client) -> String {
    let Some(head) = client.try_line() else {
        return "(closed)".to_owned();
    };
    let (kind, rest) = head.split_at(1);
    match kind {
        "+" => rest.to_owned(),
        "-" => format!("(error) {rest}"),
        ":" => format!("(integer) {rest}"),
        "#" if rest == "t" => "(true)".to_owned(),
        "#" => "(false)".to_owned(),
        "_" => "(nil)".to_owned(),
        "$" | "*" if rest == "-1" => "(nil)".to_owned(),
        "$" => {
            let text = client.line();
            assert_eq!(
                text.len().to_string(),
                rest,
                "an example's values are of one line: {text}"
            );
            format!("\"{text}\"")
        }
        "*" => listed(rest, ") ", || shown(client)),
        "%" => listed(rest, "# ", || {
            format!("{} => {}", shown(client), shown(client))
        }),
        _ => panic!("not RESP: {head}"),
    }
}

/// Numbered items, one below the other, those of several lines set in.
fn listed(count: &str, mark: &str, mut item: impl FnMut() -> String) -> String {
    let items: usize = count.parse().unwrap();
    if items == 0 {
        return "(empty array)".to_owned();
    }
    let width = items.to_string().len();
    let inner = format!("\n{}", " ".repeat(width + mark.len()));
    let lines: Vec<_> = (1..=items)
        .map(|number| format!("{number:>width$}{mark}{}", item().replace('\n', &inner)))
        .collect();
    lines.join("\n")
}

/// The lines between `<!-- name -->` and `<!-- /name -->`.
fn table(name: &str) -> &'static str {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (_, behind) = PAGE
        .split_once(&open)
        .unwrap_or_else(|| panic!("protocol.md has no {open}"));
    let (table, _) = behind
        .split_once(&close)
        .unwrap_or_else(|| panic!("protocol.md has no {close}"));
    table
}

fn assert_table(name: &str, wanted: &str) {
    assert!(
        table(name) == wanted,
        "the table between the marks '{name}' of protocol.md should be:\n\n{wanted}"
    );
}

/// Compares the first columns; what is behind them is prose.
fn assert_columns(name: &str, wanted: &[Vec<String>]) {
    let columns = wanted[0].len();
    let got: Vec<Vec<_>> = table(name)
        .lines()
        .skip(2)
        .map(|row| {
            let cells = row.trim_start_matches('|').split('|');
            cells
                .take(columns)
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    let lines = wanted.iter().fold(String::new(), |mut text, row| {
        let _infallible = writeln!(text, "| {} |", row.join(" | "));
        text
    });
    assert!(
        got == wanted,
        "the table between the marks '{name}' of protocol.md should begin its rows with:\n\n{lines}"
    );
}

fn command_table(head: &str, home: Home) -> String {
    let mut table = format!("| {head} | words | replies | summary |\n|---|---|---|---|\n");
    for spec in verbs().map(Verb::spec) {
        if spec.home != home {
            continue;
        }
        let Spec {
            name,
            usage,
            replies,
            summary,
            ..
        } = spec;
        // A bar would end the cell.
        let usage = match usage.replace('|', "\\|") {
            none if none.is_empty() => none,
            some => quoted(&some),
        };
        let _infallible = writeln!(table, "| `{name}` | {usage} | {replies} | {summary} |");
    }
    table
}

/// Every code. One that is missing here fails to compile in [`is_on_the_page`]: add it to both.
const CODES: [Code; 12] = [
    Code::Syntax,
    Code::Unknown,
    Code::Args,
    Code::Range,
    Code::TooBig,
    Code::NoNs,
    Code::Full,
    Code::Loading,
    Code::ReadOnly,
    Code::NoLog,
    Code::Busy,
    Code::Redis,
];

fn is_on_the_page(code: Code) -> bool {
    match code {
        Code::Syntax
        | Code::Unknown
        | Code::Args
        | Code::Range
        | Code::TooBig
        | Code::NoNs
        | Code::Full
        | Code::Loading
        | Code::ReadOnly
        | Code::NoLog
        | Code::Busy => true,
        // Redis's own words have no code on the wire.
        Code::Redis | Code::RedisShape => false,
    }
}

/// What stands before the text of an error of this code.
fn first_words(code: Code, dialect: Dialect) -> String {
    let mut bytes = Vec::new();
    dialect.encode(&Reply::Error(Error::new(code, "TEXT")), &mut bytes);
    let line = String::from_utf8(bytes).unwrap();
    let (words, _) = line.split_once(" TEXT").unwrap();
    words.trim_start_matches("ERR ").to_owned()
}

fn default_in_help(help: &clap::Command, name: &str) -> String {
    let arg = help
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name))
        .unwrap_or_else(|| panic!("no flag --{name}"));
    let text = arg.get_help().unwrap().to_string();
    let (_, default) = text
        .split_once("[default: ")
        .unwrap_or_else(|| panic!("--{name} tells no default"));
    default.trim_end_matches(']').to_owned()
}

/// The range that a setting's error tells when it is given nothing; empty if it has none.
fn range(name: &str) -> String {
    let refusals = ["0", "\"0s\"", "\"0B\""].map(|nothing| {
        toml::from_str::<RawSettings>(&format!("{name} = {nothing}"))
            .ok()
            .and_then(|raw| raw.check().err())
            .map(|error| error.to_string())
    });
    let range = Regex::new(&format!(
        "^{name}:? must lie between ([0-9A-Za-z]+) and ([0-9A-Za-z]+), not"
    ))
    .unwrap();
    refusals
        .iter()
        .flatten()
        .find_map(|refusal| range.captures(refusal))
        .map(|found| format!("`{}` to `{}`", &found[1], &found[2]))
        .unwrap_or_default()
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}
