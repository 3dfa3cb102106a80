//! Requests per second over loopback, one connection, at three pipeline depths; and the same
//! requests to redis-server, where one is on the `PATH`.
//!
//! Client and server share the machine, so the figures are for comparing, not for sizing.

#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use onced::config::RawSettings;
use onced::server::Server;
use tokio::sync::oneshot;

const DEPTHS: [usize; 3] = [1, 16, 128];
const PATIENCE: Duration = Duration::from_secs(10);

/// A server in this process; it stops when dropped.
struct Onced {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Onced {
    fn start() -> Self {
        let port = free_port();
        let raw = RawSettings {
            listen: Some(vec![format!("127.0.0.1:{port}")]),
            workers: Some(1),
            ..RawSettings::default()
        };
        let config = raw.check().expect("the settings are sound");
        let config = config.server().expect("the system gives random bytes");
        let server = Server::bind(config).expect("the port was free a moment ago");
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let until = async {
                let _dropped_or_sent = stopped.await;
            };
            server.run(until).expect("the server runs");
        });
        Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Onced {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server stops in peace");
        }
    }
}

/// A redis-server without persistence; it is killed when dropped.
struct Redis {
    port: u16,
    process: Child,
}

impl Redis {
    /// `None` where there is none to compare with.
    fn start() -> Option<Self> {
        let port = free_port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { port, process })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}

fn connect(port: u16) -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_nodelay(true).expect("a TCP option");
                stream
                    .set_read_timeout(Some(PATIENCE))
                    .expect("a TCP option");
                return stream;
            }
            Err(error) => assert!(began.elapsed() < PATIENCE, "nobody listens: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn line_seen(n: u64) -> Vec<u8> {
    format!("SEEN event-{n:010} 1h\n").into_bytes()
}

fn resp_set(n: u64) -> Vec<u8> {
    format!(
        "*6\r\n$3\r\nSET\r\n$16\r\norder-{n:010}\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$7\r\n3600000\r\n"
    )
    .into_bytes()
}

/// What is sent and what must come back: a new key, then the same key again.
struct Shape {
    name: &'static str,
    request: fn(u64) -> Vec<u8>,
    new: &'static [u8],
    dup: &'static [u8],
}

const LINE: Shape = Shape {
    name: "onced-line-seen",
    request: line_seen,
    new: b"NEW\n",
    dup: b"DUP\n",
};
const RESP: Shape = Shape {
    name: "onced-resp-set-nx-px",
    request: resp_set,
    new: b"+OK\r\n",
    dup: b"$-1\r\n",
};
const REDIS: Shape = Shape {
    name: "redis-resp-set-nx-px",
    ..RESP
};

/// Measures whole round trips of `depth` requests each, half of them new.
fn round_trips(group: &mut BenchmarkGroup<'_, WallTime>, shape: &Shape, depth: usize, port: u16) {
    let mut stream = connect(port);
    // Ten digits at most, and other keys at every depth.
    let mut next = depth as u64 * 20_000_000;
    let mut replies = Vec::new();
    let (mut sent, mut answered_new) = (0_u64, 0_u64);
    group.bench_function(format!("{}/{depth}", shape.name), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut sum = Duration::ZERO;
            for _ in 0..rounds {
                let mut requests = Vec::new();
                let mut expected = Vec::new();
                for _ in 0..depth {
                    // Every number is asked for twice in a row.
                    requests.extend((shape.request)(next / 2));
                    let is_new = next.is_multiple_of(2);
                    expected.extend_from_slice(if is_new { shape.new } else { shape.dup });
                    answered_new += u64::from(is_new);
                    next += 1;
                }
                replies.resize(expected.len(), 0);
                let begins = Instant::now();
                stream.write_all(&requests).expect("the server reads");
                stream.read_exact(&mut replies).expect("the server answers");
                sum += begins.elapsed();
                assert_eq!(replies, expected);
                sent += depth as u64;
            }
            sum
        });
    });
    assert_eq!(answered_new, sent.div_ceil(2), "half of all were new");
}

fn end_to_end(criterion: &mut Criterion) {
    let onced = Onced::start();
    let redis = Redis::start();
    if redis.is_none() {
        eprintln!("no redis-server on the PATH: nothing to compare with");
    }
    for depth in DEPTHS {
        let mut group = criterion.benchmark_group("end_to_end");
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .throughput(Throughput::Elements(depth as u64));
        round_trips(&mut group, &LINE, depth, onced.port);
        round_trips(&mut group, &RESP, depth, onced.port);
        if let Some(redis) = &redis {
            round_trips(&mut group, &REDIS, depth, redis.port);
        }
        group.finish();
    }
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
