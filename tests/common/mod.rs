//! What the tests of the server share: a server on a free port, and raw connections to it.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

pub mod asynchronous;
pub mod lock_scripts;
pub mod process;
pub mod scenario;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use onced::address::Address;
use onced::config::RawSettings;
use onced::server::Server;
use onced::server::clock::Clock;
use tokio::sync::oneshot;

/// Longer than anything here takes; a reply that does not come by then never will.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server in this process; it stops when dropped.
pub struct TestServer {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With other settings than the defaults.
    pub fn with(change: impl FnOnce(&mut RawSettings)) -> Self {
        Self::by(Clock::start(), change)
    }

    /// By another clock than the system's.
    pub fn by(clock: Clock, change: impl FnOnce(&mut RawSettings)) -> Self {
        let mut raw = RawSettings {
            listen: Some(vec!["127.0.0.1:0".to_owned()]),
            max_memory: Some("1GiB".to_owned()),
            workers: Some(2),
            ..RawSettings::default()
        };
        change(&mut raw);
        let config = raw.check().unwrap().server().unwrap();
        let server = Server::bind_by(clock, config).unwrap();
        let address = server
            .addresses()
            .iter()
            .find_map(|address| match address {
                Address::Tcp(host_port) => Some(host_port.clone()),
                Address::Unix(_) => None,
            })
            .unwrap_or_default();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            server
                .run(async {
                    let _dropped_or_sent = stopped.await;
                })
                .unwrap();
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn connect(&self) -> Client {
        Client::new(TcpStream::connect(&self.address).unwrap())
    }

    /// One of the numbers that `STATS` tells, asked on a connection of its own.
    pub fn gauge(&self, name: &str) -> u64 {
        self.connect().gauge(name)
    }

    /// Tells the server to stop, without waiting.
    pub fn tell_to_stop(&mut self) {
        self.stop.take();
    }
}

/// The token of a `RUN`.
pub fn token(reply: &str) -> u64 {
    let mut words = reply.split(' ');
    assert_eq!(words.next(), Some("RUN"), "{reply}");
    words.next().unwrap().parse().unwrap()
}

/// Asks for keys until there is no memory for any more.
pub fn fill(server: &TestServer) {
    let mut filler = server.connect();
    let padding = "v".repeat(1_000);
    for batch in 0.. {
        let keys = (0..100).map(|key| format!("SEEN {padding}/{batch}/{key} 1h\n"));
        filler.send(keys.collect::<String>());
        if (0..100)
            .filter(|_| filler.line().starts_with("ERR FULL"))
            .count()
            == 100
        {
            return;
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(
                outcome.is_ok() || std::thread::panicking(),
                "the server panicked"
            );
        }
    }
}

/// A raw connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// As [`Client::send`], to a server that may be killed at any moment: false if it was.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// As [`Client::resp`] or [`Client::line`], of a server that may be killed at any moment: `None` if
    /// what came is not a whole reply.
    pub fn try_reply(&mut self, is_resp: bool) -> Option<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line);
        if !matches!(read, Ok(1..)) || !line.ends_with('\n') {
            return None;
        }
        let line = line.trim_end().to_owned();
        let bytes = line.strip_prefix('$').filter(|_| is_resp);
        match bytes.map(str::parse::<usize>) {
            Some(Ok(bytes)) => {
                let mut body = vec![0; bytes + 2];
                self.reader.read_exact(&mut body).ok()?;
                body.truncate(bytes);
                Some(format!("${}", String::from_utf8_lossy(&body)))
            }
            Some(Err(_)) => Some("nil".to_owned()),
            None => Some(line),
        }
    }

    /// One line, without its end; `None` when the server has closed the connection.
    pub fn try_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Err(error) => panic!("no reply: {error}"),
        }
    }

    pub fn line(&mut self) -> String {
        self.try_line().expect("the server closed the connection")
    }

    /// Sends one line of the line protocol and returns the reply's first line.
    pub fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n"));
        self.line()
    }

    /// The whole reply of the line protocol, rows included.
    pub fn ask_all(&mut self, request: &str) -> Vec<String> {
        let head = self.ask(request);
        let rows = head
            .strip_prefix("ROWS ")
            .map_or(0, |n| n.parse::<usize>().unwrap());
        let mut lines = vec![head];
        lines.extend((0..rows).map(|_| self.line()));
        lines
    }

    /// One of the numbers that `STATS` tells; those of a verb that nobody called are 0.
    pub fn gauge(&mut self, name: &str) -> u64 {
        let number = self.stat(name);
        assert!(
            number.is_some() || name.starts_with("verb_"),
            "STATS tells no {name}"
        );
        number.map_or(0, |number| number.parse().unwrap())
    }

    /// What `STATS` tells in the row of this name.
    pub fn stat(&mut self, name: &str) -> Option<String> {
        let rows = self.ask_all("STATS");
        let found = rows
            .iter()
            .find_map(|row| row.strip_prefix(name)?.strip_prefix(' '));
        found.map(str::to_owned)
    }

    /// Sends a RESP array and returns the reply in the notation of [`Client::resp`].
    pub fn call(&mut self, words: &[&str]) -> String {
        self.send(resp_request(words));
        self.resp()
    }

    /// As [`Client::call`], with a list between the words.
    pub fn call_with(&mut self, head: &[&str], list: &[String], tail: &[&str]) -> String {
        let list = list.iter().map(String::as_str);
        let words = head.iter().copied().chain(list).chain(tail.iter().copied());
        self.call(&words.collect::<Vec<_>>())
    }

    /// One RESP reply, written as `+OK`, `-ERR ...`, `:1`, `$text`, `nil`, `[a, b]`,
    /// and in RESP3 `{k: v}`, `~[a, b]`, `=txt:lines`, `#t`, `_`.
    pub fn resp(&mut self) -> String {
        let line = self.line();
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" | "-" | ":" | "#" => line,
            "_" => "_".to_owned(),
            "$" if rest == "-1" => "nil".to_owned(),
            "$" | "=" => {
                let mut body = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.reader.read_exact(&mut body).unwrap();
                assert_eq!(body.split_off(body.len() - 2), b"\r\n");
                format!("{kind}{}", String::from_utf8_lossy(&body))
            }
            "*" | "~" => {
                let items: Vec<_> = (0..rest.parse::<usize>().unwrap())
                    .map(|_| self.resp())
                    .collect();
                let mark = if kind == "~" { "~" } else { "" };
                format!("{mark}[{}]", items.join(", "))
            }
            "%" => {
                let pairs: Vec<_> = (0..rest.parse::<usize>().unwrap())
                    .map(|_| format!("{}: {}", self.resp(), self.resp()))
                    .collect();
                format!("{{{}}}", pairs.join(", "))
            }
            _ => panic!("not RESP: {line}"),
        }
    }

    /// Whether the server has closed the connection, by an end or a reset, with nothing left to read.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.reader.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Says that no more will be sent.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// All that still comes until the server closes.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }
}

pub fn resp_request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Asks again and again until the answer is yes.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}
