//! Idempotency records: what claiming a key and storing what came of the work cost, and what such a
//! record takes.
//!
//! onced is asked `BEGIN` and then `COMPLETE` with a body, in RESP. Who has Redis sends two `SET`s for
//! that, which is what the peers are measured with: one `NX PX` that claims, and one `XX PX` that
//! stores the body. These do less: they check no token, so a holder that was given up overwrites what
//! came of the work of the next.
//!
//! The load is this executable in another role ([`ROLE`]), held to the load's core: each connection
//! sends so many claims, reads their answers, sends as many ends, reads theirs, in turns.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::hold::{self, Priority};
use crate::report::{Bench, Table, median, medians_of, thousands};
use crate::server::{Kind, Running, Server};

/// The first argument with which this executable is the load.
pub(crate) const ROLE: &str = "records-load";
/// Bytes of a body.
const BODY_BYTES: usize = 200;
/// Claims in flight per connection.
const DEPTHS: [u64; 3] = [1, 16, 128];
const CONNECTIONS: u64 = 50;
const TTL_MS: u64 = 3_600_000;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    round: u32,
    server: Kind,
    depth: u64,
    pairs: u64,
    cpu_us_per_pair: f64,
    /// Resident bytes more than those of the empty server, per record, its body included.
    bytes_per_record: f64,
}

/// All runs of this part.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let speaks_resp = |kind| matches!(kind, Kind::Onced | Kind::Redis | Kind::Valkey);
    for round in 1..=bench.scale.rounds {
        for (depth, pairs) in DEPTHS.into_iter().zip(bench.scale.record_pairs) {
            for server in bench
                .servers
                .iter()
                .filter(|server| speaks_resp(server.kind))
            {
                let figure = run(bench, server, depth, pairs, round)?;
                bench.progress(&format!(
                    "records, round {round} of {}: {server}, {depth} in flight: {:.3} µs a pair, {:.1} bytes",
                    bench.scale.rounds, figure.cpu_us_per_pair, figure.bytes_per_record
                ));
                figures.push(figure);
            }
        }
    }
    Ok(figures)
}

fn run(
    bench: &Bench,
    server: &Server,
    depth: u64,
    pairs: u64,
    round: u32,
) -> anyhow::Result<Figure> {
    let running = server.start(bench.cores.server)?;
    let empty_bytes = running.resident()?.bytes;
    let before = running.cpu_time()?;
    load(bench, &running, server.kind, depth, pairs)?;
    let cpu_ns = running.cpu_time()?.since(&before);
    let stored = running.keys()?;
    ensure!(
        stored == pairs,
        "{server} stored {stored} of {pairs} records"
    );
    let bytes = running.resident()?.bytes.saturating_sub(empty_bytes);
    Ok(Figure {
        round,
        server: server.kind,
        depth,
        pairs,
        cpu_us_per_pair: cpu_ns as f64 / 1e3 / pairs as f64,
        bytes_per_record: bytes as f64 / pairs as f64,
    })
}

fn load(
    bench: &Bench,
    running: &Running,
    kind: Kind,
    depth: u64,
    pairs: u64,
) -> anyhow::Result<()> {
    let this = std::env::current_exe()?;
    let mut command = hold::command(&[bench.cores.load], Priority::Usual, this)?;
    let is_onced = u64::from(kind == Kind::Onced);
    command.arg(ROLE);
    for number in [running.port.into(), is_onced, depth, pairs] {
        command.arg(number.to_string());
    }
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "the load failed: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}

/// The load, in a process of its own.
pub(crate) fn make(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let numbers: Vec<u64> = args
        .map(|word| word.to_str()?.parse().ok())
        .collect::<Option<_>>()
        .context("give numbers")?;
    let &[port, is_onced, depth, pairs] = &numbers[..] else {
        bail!("give a port, whether it is onced, how many in flight, and how many pairs");
    };
    let mut connections = (0..CONNECTIONS)
        .map(|_| Connection::open(port as u16))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let body = "x".repeat(BODY_BYTES);
    let mut next = 0;
    while next < pairs {
        let mut sent = Vec::new();
        for connection in &mut connections {
            let keys: Vec<_> = (next..pairs.min(next + depth)).map(key).collect();
            next += keys.len() as u64;
            for key in &keys {
                connection.ask(&claim(key, is_onced == 1));
            }
            connection.send()?;
            sent.push(keys);
        }
        for (connection, keys) in connections.iter_mut().zip(&sent) {
            for key in keys {
                let token = connection.claimed(is_onced == 1)?;
                connection.ask(&end(key, &token, &body, is_onced == 1));
            }
            connection.send()?;
        }
        for (connection, keys) in connections.iter_mut().zip(&sent) {
            for _ in keys {
                let told = connection.line()?;
                ensure!(told == "+OK", "a claimed key was ended with '{told}'");
            }
        }
    }
    Ok(())
}

/// A UUID's text.
fn key(n: u64) -> String {
    // Every bit of the number changes about half of the digits.
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let wide = u128::from(mixed) << 64 | u128::from(n.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let digits = format!("{wide:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    parts.join("-")
}

fn claim(key: &str, is_onced: bool) -> Vec<String> {
    let ttl = TTL_MS.to_string();
    let words = if is_onced {
        vec!["BEGIN", key, "TTL", "1h"]
    } else {
        vec!["SET", key, "claimed", "NX", "PX", &ttl]
    };
    words.into_iter().map(str::to_owned).collect()
}

fn end(key: &str, token: &str, body: &str, is_onced: bool) -> Vec<String> {
    let ttl = TTL_MS.to_string();
    let words = if is_onced {
        vec!["COMPLETE", key, token, "CODE", "200", "BODY", body]
    } else {
        vec!["SET", key, body, "XX", "PX", &ttl]
    };
    words.into_iter().map(str::to_owned).collect()
}

struct Connection {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
    requests: Vec<u8>,
}

impl Connection {
    fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let replies = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Self {
            stream,
            replies,
            requests: Vec::new(),
        })
    }

    fn ask(&mut self, words: &[String]) {
        self.requests
            .extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.requests
                .extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.requests)?;
        self.requests.clear();
        Ok(())
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = (&mut self.replies).take(1 << 10).read_line(&mut line)?;
        ensure!(read > 0, "the server closed the connection");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// The token that a claim was answered with; empty where there is none.
    fn claimed(&mut self, is_onced: bool) -> anyhow::Result<String> {
        let told = self.line()?;
        if !is_onced {
            ensure!(told == "+OK", "a new key was claimed with '{told}'");
            return Ok(String::new());
        }
        ensure!(told == "*4", "a new key was claimed with '{told}'");
        let (word, token) = (self.line()?, self.line()?);
        let (_lease, attempt) = (self.line()?, self.line()?);
        ensure!(
            word == "+RUN" && attempt == ":1",
            "a new key was claimed with '{word}', attempt {attempt}"
        );
        Ok(token.trim_start_matches(':').to_owned())
    }
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    println!("## Idempotency records\n");
    println!(
        "A key is claimed, and then {BODY_BYTES} bytes are stored under it: `BEGIN` and `COMPLETE` of \
         onced, `SET k claimed NX PX` and `SET k body XX PX` of the others. {CONNECTIONS} connections, \
         36-character UUID keys, all different. {}. Pairs in a run: {}.\n",
        medians_of(bench.scale.rounds),
        bench
            .scale
            .record_pairs
            .map(|pairs| thousands(pairs as f64))
            .join(", ")
    );
    let depths = DEPTHS.map(|depth| format!("{depth} in flight"));
    let select = |server, depth| {
        let figures = figures.iter();
        figures.filter(move |figure| figure.server == server && figure.depth == depth)
    };
    let kinds: Vec<Kind> = bench.servers.iter().map(|server| server.kind).collect();
    let measured = |kind: &&Kind| figures.iter().any(|figure| figure.server == **kind);
    let mut speed = Table::new("µs of server CPU per pair", depths.clone());
    let mut ratio = Table::new(
        "the same, as a multiple of onced's, in the same round",
        depths,
    );
    for &kind in kinds.iter().filter(measured) {
        let cells = DEPTHS.map(|depth| {
            let us: Vec<_> = select(kind, depth)
                .map(|figure| figure.cpu_us_per_pair)
                .collect();
            median(&us).map(|us| format!("{us:.3}"))
        });
        speed.row(&bench.name(kind), cells);
        let cells = DEPTHS.map(|depth| {
            let ratios: Vec<_> = select(kind, depth)
                .filter_map(|this| {
                    let mut onced = select(Kind::Onced, depth);
                    let onced = onced.find(|onced| onced.round == this.round)?;
                    Some(this.cpu_us_per_pair / onced.cpu_us_per_pair)
                })
                .collect();
            median(&ratios).map(|ratio| format!("{ratio:.2}"))
        });
        ratio.row(&bench.name(kind), cells);
    }
    println!("{speed}\n{ratio}");
    let [.., deepest] = DEPTHS;
    let head = [
        format!("a record with a body of {BODY_BYTES}"),
        "beside its body".to_owned(),
    ];
    let mut memory = Table::new("resident bytes", head);
    for &kind in kinds.iter().filter(measured) {
        let bytes: Vec<_> = select(kind, deepest)
            .map(|figure| figure.bytes_per_record)
            .collect();
        let bytes = median(&bytes);
        let beside = bytes.map(|bytes| bytes - BODY_BYTES as f64);
        let cells = [bytes, beside].map(|bytes| bytes.map(|bytes| format!("{bytes:.1}")));
        memory.row(&bench.name(kind), cells);
    }
    println!("{memory}");
}
