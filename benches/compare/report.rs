//! The whole run: the parts in their order, and what they have in common in print.
//!
//! A part is printed as soon as it is measured, and the file of figures is written anew, so that
//! a run that is broken off has not been for nothing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;

use crate::folder::Folder;
use crate::hold::Cores;
use crate::load::Form;
use crate::options::{Options, Part, Scale};
use crate::server::{self, Kind, Server};
use crate::{
    calm, fairness, folder, log, memory, process, rate, records, reload, shapes, speed, stalls,
};

/// What all parts need to know.
pub(crate) struct Bench {
    pub(crate) servers: Vec<Server>,
    pub(crate) cores: Cores,
    pub(crate) scale: Scale,
    /// Another onced to measure, in fairness.
    pub(crate) before: Option<Server>,
    /// Where folders for logs are made.
    disk: PathBuf,
    began: Instant,
}

impl Bench {
    /// Every server with every form of request it is measured with.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&Server, Form)> {
        self.servers
            .iter()
            .flat_map(|server| server.kind.forms().iter().map(move |&form| (server, form)))
    }

    /// Whether the server is measured.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.servers.iter().any(|server| server.kind == kind)
    }

    /// The server's name.
    pub(crate) fn name(&self, kind: Kind) -> String {
        let server = self.servers.iter().find(|server| server.kind == kind);
        server.map_or_else(|| format!("{kind:?}"), ToString::to_string)
    }

    /// The servers that can keep a log.
    pub(crate) fn log_keepers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.keeps_log)
    }

    /// An empty folder for a log.
    pub(crate) fn folder(&self) -> anyhow::Result<Folder> {
        Folder::make(&self.disk)
    }

    /// Says on standard error what has just been done.
    pub(crate) fn progress(&self, what: &str) {
        eprintln!("{:>5} s  {what}", self.began.elapsed().as_secs());
    }
}

/// Every round's figures.
#[derive(Debug, Serialize)]
struct Figures {
    header: Header,
    speed: Vec<speed::Figure>,
    memory: Vec<memory::Figure>,
    shapes: Vec<shapes::Figure>,
    records: Vec<records::Figure>,
    rate: Vec<rate::Figure>,
    fairness: Vec<fairness::Figure>,
    stalls: Vec<stalls::Figure>,
    log: log::Figures,
    reload: Vec<reload::Figure>,
    calm: Vec<calm::Figure>,
}

/// Where and how the figures came about.
#[derive(Debug, Serialize)]
struct Header {
    date: String,
    cores: usize,
    server_core: usize,
    load_core: usize,
    cpu: String,
    kernel: String,
    servers: Vec<String>,
    not_here: Vec<&'static str>,
    command: String,
    quick: bool,
}

/// Measures what the command line asks for.
pub(crate) fn run() -> anyhow::Result<()> {
    let options = Options::parse();
    if !options.bench {
        eprintln!("compare: left out; `cargo bench --bench compare` runs it");
        return Ok(());
    }
    let filter = options.filter.as_deref().unwrap_or_default();
    if !"compare".contains(filter) {
        return Ok(());
    }
    folder::remove_leftovers(&options.disk);
    let (servers, not_here) = server::find(&options)?;
    let bench = Bench {
        servers,
        cores: Cores::pick()?,
        scale: Scale::of(&options),
        before: options
            .before
            .as_deref()
            .map(Server::other_onced)
            .transpose()?,
        disk: options.disk.clone(),
        began: Instant::now(),
    };
    let mut figures = Figures {
        header: Header::new(&bench, not_here, options.quick)?,
        speed: Vec::new(),
        memory: Vec::new(),
        shapes: Vec::new(),
        records: Vec::new(),
        rate: Vec::new(),
        fairness: Vec::new(),
        stalls: Vec::new(),
        log: log::Figures::default(),
        reload: Vec::new(),
        calm: Vec::new(),
    };
    println!("{}", figures.header);
    for part in [
        Part::Speed,
        Part::Memory,
        Part::Shapes,
        Part::Records,
        Part::Rate,
        Part::Fairness,
        Part::Stalls,
        Part::Log,
        Part::Reload,
        Part::Calm,
    ] {
        if options.parts.contains(&part) {
            figures.add(&bench, part)?;
            if let Some(path) = &options.json {
                figures.write(path)?;
            }
        }
    }
    Ok(())
}

impl Figures {
    /// Measures a part and prints it.
    fn add(&mut self, bench: &Bench, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Speed => {
                self.speed = speed::measure(bench)?;
                speed::print(bench, &self.speed);
            }
            Part::Memory => {
                self.memory = memory::measure(bench)?;
                memory::print(bench, &self.memory);
            }
            Part::Shapes => {
                self.shapes = shapes::measure(bench)?;
                shapes::print(bench, &self.shapes);
            }
            Part::Records => {
                self.records = records::measure(bench)?;
                records::print(bench, &self.records);
            }
            Part::Rate => {
                self.rate = rate::measure(bench, &speed::capacities(bench, &self.speed)?)?;
                rate::print(bench, &self.rate);
            }
            Part::Fairness => {
                self.fairness = fairness::measure(bench)?;
                fairness::print(bench, &self.fairness);
            }
            Part::Stalls => {
                self.stalls = stalls::measure(bench, &speed::capacities(bench, &self.speed)?)?;
                stalls::print(bench, &self.stalls);
            }
            Part::Log => {
                self.log = log::measure(bench)?;
                log::print(bench, &self.log);
            }
            Part::Reload => {
                self.reload = reload::measure(bench)?;
                reload::print(bench, &self.reload);
            }
            Part::Calm => {
                self.calm = calm::measure(bench, &speed::capacities(bench, &self.speed)?)?;
                calm::print(bench, &self.calm);
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string(self)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Header {
    fn new(bench: &Bench, not_here: Vec<&'static str>, quick: bool) -> anyhow::Result<Self> {
        let date = Command::new("date").args(["-u", "+%F %H:%M UTC"]).output();
        let date = date.context("cannot run date")?.stdout;
        let words: Vec<_> = std::env::args()
            .skip(1)
            .filter(|word| word != "--bench")
            .collect();
        let command = format!("cargo bench --bench compare -- {}", words.join(" "));
        Ok(Self {
            date: String::from_utf8_lossy(&date).trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            server_core: bench.cores.server,
            load_core: bench.cores.load,
            cpu: process::cpu_model(),
            kernel: process::kernel(),
            servers: bench.servers.iter().map(Server::title).collect(),
            not_here,
            command: command.trim_end_matches(" -- ").to_owned(),
            quick,
        })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# onced beside other servers\n")?;
        writeln!(
            f,
            "{}, {} cores, {}, {}; servers on core {}, load on core {}{}.",
            self.date,
            self.cores,
            self.cpu,
            self.kernel,
            self.server_core,
            self.load_core,
            if self.server_core == self.load_core {
                ": the same, so the load's time is in every latency"
            } else {
                ""
            }
        )?;
        write!(f, "Servers: {}", self.servers.join(", "))?;
        if !self.not_here.is_empty() {
            write!(f, "; not on this machine: {}", self.not_here.join(", "))?;
        }
        writeln!(f, ".\n\nFrom `{}`.", self.command)?;
        if self.quick {
            writeln!(
                f,
                "\n**A quick run: it shows that this works, and no figure is worth reading.**"
            )?;
        }
        Ok(())
    }
}

/// A Markdown table; its first column names the rows.
pub(crate) struct Table {
    columns: usize,
    lines: Vec<String>,
}

impl Table {
    /// A table whose first column is headed by what the figures are.
    pub(crate) fn new(title: &str, columns: impl IntoIterator<Item = String>) -> Self {
        let columns: Vec<_> = columns.into_iter().collect();
        let head = format!("| {title} | {} |", columns.join(" | "));
        let rule = format!("|---|{}", "---:|".repeat(columns.len()));
        Self {
            columns: columns.len(),
            lines: vec![head, rule],
        }
    }

    /// Adds a row; what was not measured is a dash.
    pub(crate) fn row(&mut self, name: &str, cells: impl IntoIterator<Item = Option<String>>) {
        let cells: Vec<_> = cells
            .into_iter()
            .map(|cell| cell.unwrap_or_else(|| "–".to_owned()))
            .collect();
        assert_eq!(cells.len(), self.columns, "a cell for every column");
        self.lines
            .push(format!("| {name} | {} |", cells.join(" | ")));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The middle of `values`, or between its two middles; none of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// What the figures of so many rounds are.
pub(crate) fn medians_of(rounds: u32) -> String {
    match rounds {
        1 => "One round".to_owned(),
        _ => format!("Medians of {rounds} rounds"),
    }
}

/// Microseconds to read: three digits at least, no more than matter.
pub(crate) fn microseconds(us: f64) -> String {
    if us < 100.0 {
        format!("{us:.1}")
    } else {
        thousands(us)
    }
}

/// A whole number with its thousands apart.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
