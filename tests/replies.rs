//! What replies take while nobody reads them: memory within the bound, whatever they tell.
//!
//! The server is a process of its own, since its resident memory is measured. `ONCED_STORM=1000` makes the
//! short forms long: so many clients; `ONCED_STORM_MEMORY=256` gives some of them another bound, in MiB.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use common::process::{self, Dice, Process};
use common::{Client, PATIENCE, eventually, resp_request, token};
use socket2::{Domain, Socket, Type};

const MIB: usize = 1 << 20;
/// The most that a server with this bound may take, with its two workers.
const fn resident_max(memory_max: usize) -> usize {
    memory_max / 100 * 115 + 32 * MIB + 2 * 4 * MIB
}

fn memory_max() -> usize {
    let mib = std::env::var("ONCED_STORM_MEMORY").map_or(64, |mib| mib.parse().unwrap());
    mib * MIB
}

fn serve_storm() -> Process {
    serve(&format!("{}MiB", memory_max() / MIB))
}

fn serve(memory: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onced"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--workers", "2"]);
    command.args(["--max-memory", memory]);
    Process::spawn(command)
}

/// How many clients there are; `ONCED_STORM` says another number.
fn clients(short: usize) -> usize {
    let clients = std::env::var("ONCED_STORM").map_or(short, |clients| clients.parse().unwrap());
    process::allow_open_files(clients as u64 * 2 + 100);
    clients
}

fn resident_bytes(server: &Process) -> usize {
    process::resident_bytes(server.id()).unwrap()
}

/// A client whose system keeps little for it: what it does not read stays with the server.
fn slow_client(server: &Process) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let address: SocketAddr = server.address.parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Another's bytes for each name.
fn value(name: &str, len: usize) -> Vec<u8> {
    let unit = format!("<value of {name}>");
    unit.bytes().cycle().take(len).collect()
}

fn set(client: &mut Client, name: &str, value: &[u8]) -> String {
    let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n", name.len());
    client.send(
        [
            head.as_bytes(),
            format!("${}\r\n", value.len()).as_bytes(),
            value,
            b"\r\n",
        ]
        .concat(),
    );
    client.resp()
}

/// Asks another client's questions until told to stop; the longest that one took.
struct Neighbour {
    thread: std::thread::JoinHandle<Vec<Duration>>,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Neighbour {
    fn begin(server: &Process) -> Self {
        let mut client = server.connect();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(
                    client.call(&["SET", "neighbour", "1", "PX", "60000"]),
                    "+OK"
                );
                assert_eq!(client.call(&["GET", "neighbour"]), "$1");
                took.push(began.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            took
        });
        Self { thread, stop }
    }

    /// Asserts that nothing took long.
    fn end(self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut took = self.thread.join().unwrap();
        took.sort();
        let at = took.len() - 1 - took.len() / 1_000;
        println!("a neighbour's p99.9 of {}: {:?}", took.len(), took[at]);
        let max = if std::env::var_os("ONCED_STORM").is_some() {
            Duration::from_millis(20)
        } else {
            // Whatever else this machine does.
            PATIENCE / 2
        };
        assert!(took[at] < max, "{:?} of {}", took[at], took.len());
    }
}

fn assert_resident(server: &Process, memory_max: usize) {
    let resident = resident_bytes(server);
    assert!(
        resident <= resident_max(memory_max),
        "{} MiB",
        resident / MIB
    );
}

/// Waits until the server has executed so many of a verb, and looks at its memory meanwhile.
fn executed(server: &Process, other: &mut Client, verb: &str, calls: usize, memory_max: usize) {
    let name = format!("verb_{verb}_calls");
    eventually("all are executed", || {
        assert_resident(server, memory_max);
        other.gauge(&name) >= calls as u64
    });
}

/// Reads an array of bulk strings, or an error; whether it was the array.
fn read_array(stream: &mut TcpStream, expected: &[Vec<u8>]) -> bool {
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    if first == *b"-" {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut first).unwrap();
            line.push(first[0]);
        }
        assert!(line.starts_with(b"OOM "), "{}", line.escape_ascii());
        return false;
    }
    let mut wanted = format!("*{}\r\n", expected.len()).into_bytes();
    for value in expected {
        wanted.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
        wanted.extend_from_slice(value);
        wanted.extend_from_slice(b"\r\n");
    }
    let mut got = vec![0; wanted.len() - 1];
    stream.read_exact(&mut got).unwrap();
    assert!(first == *b"*" && got == wanted[1..], "another reply");
    true
}

#[test]
fn a_thousand_clients_that_read_nothing_share_what_they_are_told() {
    const VALUES: usize = 31;
    let clients = clients(100);
    let server = serve_storm();
    let mut other = server.connect();
    let mut writer = server.connect();
    let names: Vec<_> = (0..VALUES).map(|n| format!("v{n}")).collect();
    let values: Vec<_> = names.iter().map(|name| value(name, 256 << 10)).collect();
    for (name, value) in names.iter().zip(&values) {
        assert_eq!(set(&mut writer, name, value), "+OK");
    }
    let before = other.gauge("memory_bytes");
    let words: Vec<_> = ["MGET"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let request = resp_request(&words);
    let neighbour = Neighbour::begin(&server);
    let mut streams: Vec<_> = (0..clients)
        .map(|_| {
            let mut stream = slow_client(&server);
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    executed(&server, &mut other, "mget", clients, memory_max());
    assert_resident(&server, memory_max());
    // Some read, the others go away.
    for stream in streams.iter_mut().take(clients / 10) {
        assert!(read_array(stream, &values), "there is room for all of them");
    }
    assert_resident(&server, memory_max());
    drop(streams);
    eventually("the memory is back", || {
        other.gauge("memory_bytes") < before + (256 << 10)
    });
    neighbour.end();
}

#[test]
fn all_who_wait_for_a_body_share_it() {
    let clients = clients(400);
    let server = serve_storm();
    let mut other = server.connect();
    let token = token(&other.ask("BEGIN work LEASE 60s"));
    let mut streams: Vec<_> = (0..clients)
        .map(|_| {
            let mut stream = slow_client(&server);
            stream.write_all(b"WAIT work TIMEOUT 60s\n").unwrap();
            stream
        })
        .collect();
    eventually("all wait", || other.gauge("waiters") == clients as u64);
    let body = value("work", 256 << 10);
    other.send(
        [
            format!("COMPLETE work {token} LEN {}\n", body.len()).as_bytes(),
            &body,
            b"\n",
        ]
        .concat(),
    );
    assert_eq!(other.line(), "OK");
    eventually("none waits", || {
        assert_resident(&server, memory_max());
        other.gauge("waiters") == 0
    });
    assert_resident(&server, memory_max());
    let wanted = [format!("DONE 0 {}\n", body.len()).as_bytes(), &body, b"\n"].concat();
    for stream in streams.iter_mut().take(clients / 4) {
        let mut got = vec![0; wanted.len()];
        stream.read_exact(&mut got).unwrap();
        assert!(got == wanted, "another reply");
    }
}

#[test]
fn what_was_overwritten_counts_while_a_reply_holds_it() {
    const VALUES: usize = 28;
    let server = serve("64MiB");
    let mut other = server.connect();
    let mut writer = server.connect();
    let names: Vec<_> = (0..VALUES).map(|n| format!("v{n}")).collect();
    let values: Vec<_> = names.iter().map(|name| value(name, 256 << 10)).collect();
    for (name, value) in names.iter().zip(&values) {
        assert_eq!(set(&mut writer, name, value), "+OK");
    }
    let stored = other.gauge("memory_bytes");
    let words: Vec<_> = ["MGET"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    // What the system takes of a reply is not held any more.
    let mut readers: Vec<_> = (0..3).map(|_| slow_client(&server)).collect();
    for reader in &mut readers {
        reader.write_all(&resp_request(&words)).unwrap();
    }
    executed(&server, &mut other, "mget", readers.len(), 64 * MIB);
    assert!(other.gauge("memory_bytes") < stored + MIB as u64, "shared");
    for name in &names {
        assert_eq!(set(&mut writer, name, &value("another", 256 << 10)), "+OK");
    }
    let held = other.gauge("memory_bytes") - stored;
    assert!(held > 2 * MIB as u64, "{held} bytes are counted");
    assert!(
        held <= (VALUES * (257 << 10)) as u64,
        "{held} bytes are counted, not each once"
    );
    // More of that than there is room for is not possible. The system takes up to 4 MiB of each reply, by its
    // usual limit, so at least 3 MiB of each are held.
    let mut full = 0;
    for round in 0..30 {
        if full > 0 {
            break;
        }
        let mut reader = slow_client(&server);
        reader.write_all(&resp_request(&words)).unwrap();
        readers.push(reader);
        executed(&server, &mut other, "mget", readers.len(), 64 * MIB);
        for name in &names {
            let told = set(&mut writer, name, &value(&round.to_string(), 256 << 10));
            assert!(told == "+OK" || told.starts_with("-OOM"), "{told}");
            if told != "+OK" {
                // It may have been closed, too: there is no memory to read such a request into.
                writer = server.connect();
                full += 1;
            }
        }
        assert_resident(&server, 64 * MIB);
    }
    assert!(full > 0, "all of it had room");
    // They were told what was there when they asked.
    let first = &mut readers[0];
    assert!(read_array(first, &values));
    drop(readers);
    eventually("the memory is back", || {
        other.gauge("memory_bytes") < stored + MIB as u64
    });
    assert_eq!(set(&mut writer, "v0", &value("v0", 256 << 10)), "+OK");
}

/// What is copied for each client has its room, or is refused.
#[test]
fn copies_that_nobody_reads_stay_within_the_bound() {
    let clients = clients(100);
    let server = serve_storm();
    let mut other = server.connect();
    let mut writer = server.connect();
    let names: Vec<_> = (0..50).map(|n| format!("v{n}")).collect();
    let values: Vec<_> = names.iter().map(|name| value(name, 4_000)).collect();
    for (name, value) in names.iter().zip(&values) {
        assert_eq!(set(&mut writer, name, value), "+OK");
    }
    let before = other.gauge("memory_bytes");
    let words = names.iter().map(String::as_str).cycle().take(1_000);
    let words: Vec<_> = ["MGET"].into_iter().chain(words).collect();
    let expected: Vec<_> = values.iter().cycle().take(1_000).cloned().collect();
    let neighbour = Neighbour::begin(&server);
    let mut streams: Vec<_> = (0..clients)
        .map(|_| {
            let mut stream = slow_client(&server);
            stream.write_all(&resp_request(&words)).unwrap();
            stream
        })
        .collect();
    executed(&server, &mut other, "mget", clients, memory_max());
    assert_resident(&server, memory_max());
    assert!(other.gauge("memory_bytes") <= (memory_max() / 100 * 106 + MIB) as u64);
    let told = streams
        .iter_mut()
        .map(|stream| read_array(stream, &expected));
    let told = told.filter(|&told| told).count();
    println!("{told} of {clients} were told");
    let all_have_room = clients * 4_000_000 < memory_max() * 2;
    assert!(told >= 5 && (told < clients || all_have_room));
    drop(streams);
    eventually("the memory is back", || {
        other.gauge("memory_bytes") < before + (256 << 10)
    });
    eventually("the memory is given back", || {
        resident_bytes(&server) < 64 * MIB
    });
    neighbour.end();
}

/// All that is told of values while others change them.
struct Mix {
    server: Process,
    other: Client,
    writer: Client,
    dice: Dice,
    model: Vec<Option<Vec<u8>>>,
    slow: Vec<TcpStream>,
    version: u64,
    refused: usize,
}

impl Mix {
    fn told_of(&self, at: usize) -> String {
        match &self.model[at] {
            Some(value) => format!("${}", String::from_utf8_lossy(value)),
            None => "nil".to_owned(),
        }
    }

    fn key(&mut self) -> usize {
        self.dice.below(self.model.len() as u64) as usize
    }

    fn set(&mut self) {
        let at = self.key();
        self.version += 1;
        let lens = [90, 4_000, 200_000, 260_000, 260_000];
        let next = value(&self.version.to_string(), *self.dice.pick(&lens));
        let name = format!("v{at}");
        let text = String::from_utf8_lossy(&next);
        let asks = self.dice.one_in(2);
        let words = ["SET", &name, &text, "GET"];
        let told = self.writer.call(&words[..if asks { 4 } else { 3 }]);
        if told.starts_with("-OOM") {
            self.refused += 1;
            // There was not even room for the request.
            if told.ends_with("closing") {
                self.writer = self.server.connect();
            }
            return;
        }
        let expected = if asks {
            self.told_of(at)
        } else {
            "+OK".to_owned()
        };
        assert!(told == expected, "SET v{at}");
        self.model[at] = Some(next);
    }

    fn get_del(&mut self) {
        let at = self.key();
        let told = self.writer.call(&["GETDEL", &format!("v{at}")]);
        // What is refused is still there.
        if !told.starts_with("-OOM") {
            assert!(told == self.told_of(at), "GETDEL v{at}");
            self.model[at] = None;
        }
    }

    fn get(&mut self) {
        let at = self.key();
        let told = self.writer.call(&["GET", &format!("v{at}")]);
        assert!(told == self.told_of(at), "GET v{at}");
    }

    /// A record that goes while a slow client is told of it.
    fn record(&mut self) {
        let key = format!("r{}", self.dice.next());
        let told = self.other.ask(&format!("BEGIN {key} LEASE 60s"));
        let Some(token) = told.strip_prefix("RUN ") else {
            assert!(told.starts_with("ERR FULL"), "{told}");
            return;
        };
        let token = token.split(' ').next().unwrap();
        let body = value("body", 200_000);
        let head = format!("COMPLETE {key} {token} LEN {}\n", body.len());
        self.other.send([head.as_bytes(), &body, b"\n"].concat());
        let told = self.other.line();
        assert!(told == "OK" || told.starts_with("ERR FULL"), "{told}");
        if told.ends_with("closing") {
            self.other = self.server.connect();
        }
        let mut stream = slow_client(&self.server);
        let request = format!("BEGIN {key}\n").repeat(20);
        stream.write_all(request.as_bytes()).unwrap();
        self.slow.push(stream);
        assert_eq!(self.other.ask(&format!("FORGET {key}")), "OK 1");
    }

    fn slow_reader(&mut self) {
        let names: Vec<_> = (0..=self.dice.below(30))
            .map(|_| format!("v{}", self.key()))
            .collect();
        let words = names.iter().map(String::as_str);
        let words: Vec<_> = ["MGET"].into_iter().chain(words).collect();
        let mut stream = slow_client(&self.server);
        stream.write_all(&resp_request(&words)).unwrap();
        self.slow.push(stream);
    }
}

#[test]
fn values_come_and_go_while_slow_clients_hold_them() {
    const MEMORY_MAX: usize = 48 * MIB;
    let is_long = std::env::var_os("ONCED_STORM").is_some();
    let server = serve("48MiB");
    let mut mix = Mix {
        other: server.connect(),
        writer: server.connect(),
        server,
        dice: Dice::new(18),
        model: vec![None; 500],
        slow: Vec::new(),
        version: 0,
        refused: 0,
    };
    for step in 0..if is_long { 20_000 } else { 2_000 } {
        match mix.dice.below(10) {
            0..5 => mix.set(),
            5 => mix.get_del(),
            6 => mix.get(),
            7 => mix.record(),
            _ => mix.slow_reader(),
        }
        if mix.slow.len() > 50 {
            let gone = mix.dice.below(50) as usize;
            mix.slow.swap_remove(gone);
        }
        if step % 20 == 0 {
            let resident = resident_bytes(&mix.server);
            assert!(resident <= resident_max(MEMORY_MAX), "{resident} bytes");
        }
    }
    println!("{} of {} were refused", mix.refused, mix.version);
    assert!(mix.refused > 0, "there was always room");
    assert_resident(&mix.server, MEMORY_MAX);
    mix.slow.clear();
    let stored: usize = mix.model.iter().flatten().map(Vec::len).sum();
    let memory = |mix: &mut Mix| mix.other.gauge("memory_bytes") as usize;
    eventually("the memory is back", || memory(&mut mix) < stored + 2 * MIB);
}
