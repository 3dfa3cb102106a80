//! A request that is answered from what is there allocates nothing.
//!
//! Every allocation and reallocation of the server's worker threads is counted, whatever it is
//! for: reading, decoding, the store, metrics, encoding, the runtime. Those of other threads are
//! not: this test's own, the one that accepts, and the sweeper, which collects the namespaces
//! twenty times a second. So the numbers are exact, and the bound is nought.
//!
//! A key that is new finds its place in the table where another was forgotten; only its deadline
//! may need room in the wheel, which is taken for many at a time.
//!
//! What may allocate, and is kept out of the measured part: a connection's and a verb's first
//! requests, and requests that come in pieces or are left for the next turn, since they must wait
//! somewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unsafe_code,
    reason = "a global allocator cannot be written without; it passes everything on to the system's"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{PATIENCE, TestServer, resp_request};

/// The system's allocator, which also counts for the threads in question.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whether allocations are counted now.
static COUNTS: AtomicBool = AtomicBool::new(false);
/// Allocations of worker threads.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// How large the last of them was, as a hint at where to look.
static LAST_BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread is a worker; unknown until it first allocates while counting.
    static IS_WORKER: Cell<Option<bool>> = const { Cell::new(None) };
}

impl Counting {
    fn count(layout: Layout) {
        if COUNTS.load(Ordering::Relaxed) && is_worker() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            LAST_BYTES.store(layout.size(), Ordering::Relaxed);
        }
    }
}

/// Threads are asked while counting only, long after they began: a thread that is just starting
/// does not know its name yet.
fn is_worker() -> bool {
    let known = IS_WORKER.try_with(|is_worker| {
        is_worker.get().unwrap_or_else(|| {
            // Should asking allocate, that is not asked about again.
            is_worker.set(Some(false));
            let is = thread::current()
                .name()
                .is_some_and(|name| name.starts_with("onced-worker"));
            is_worker.set(Some(is));
            is
        })
    });
    known.unwrap_or(false)
}

// SAFETY: each method passes its arguments on to the same method of `System`, whose contract is
// the one that the caller keeps, and returns what that returns; counting touches atomics and a
// thread-local without a destructor, and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count(layout);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, new_size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Requests that are counted, one at a time and again in batches.
const REQUESTS: usize = 10_000;
/// Requests in flight when they come in batches: no more than the server executes, even in pairs,
/// between two looks at its clock. When its core was taken away for longer than a turn, the rest
/// of a larger batch waits in a buffer of its connection's own.
const BATCH: usize = 16;
/// Keys of a shape; each request takes the next one.
const KEYS: usize = 500;
/// Keys of one `MSEEN`.
const MSEEN_KEYS: usize = 100;
/// How much one write sends at most, so that it arrives in one piece.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Scripts of lock libraries.
const RELEASE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
const EXTEND: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end";

fn uuid(n: usize) -> String {
    format!("38101a0b-2096-447d-96ea-a692{n:08x}")
}

/// Requests of one shape and the reply that each of them gets once its keys are known.
struct Shape {
    name: &'static str,
    requests: Vec<Vec<u8>>,
    reply: Vec<u8>,
    /// Allocations that all counted requests may cause together.
    allocations_max: usize,
}

impl Shape {
    fn new(
        name: &'static str,
        request: impl Fn(usize) -> Vec<u8>,
        reply: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            name,
            requests: (0..KEYS).map(request).collect(),
            reply: reply.into(),
            allocations_max: 0,
        }
    }

    /// Sends `rounds` batches and waits for the replies to each before the next.
    fn exchange(&self, stream: &mut TcpStream, buffers: &mut Buffers, batch: usize, rounds: usize) {
        let mut requests = self.requests.iter().cycle();
        for _ in 0..rounds {
            buffers.sent.clear();
            for request in requests.by_ref().take(batch) {
                buffers.sent.extend_from_slice(request);
            }
            assert!(buffers.sent.len() <= PIECE_BYTES_MAX);
            stream.write_all(&buffers.sent).unwrap();
            let received = &mut buffers.received[..batch * self.reply.len()];
            stream.read_exact(received).unwrap();
            let same = received
                .chunks(self.reply.len())
                .all(|reply| reply == self.reply);
            assert!(same, "{}: {}", self.name, received.escape_ascii());
        }
    }
}

struct Buffers {
    sent: Vec<u8>,
    received: Vec<u8>,
}

/// Allocations of all workers meanwhile.
fn allocations(during: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    COUNTS.store(true, Ordering::SeqCst);
    during();
    COUNTS.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

fn assert_allocates_nothing(server: &TestServer, shapes: &[Shape]) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffers = Buffers {
        sent: Vec::with_capacity(PIECE_BYTES_MAX),
        received: vec![0; PIECE_BYTES_MAX],
    };
    for shape in shapes {
        let batch = BATCH.min(PIECE_BYTES_MAX / shape.requests[0].len());
        // The first time around, keys are new, and of their replies only the lines are counted: one that
        // is left unread would leave one request more in flight than is said.
        let lines = |bytes: &[u8]| memchr::memchr_iter(b'\n', bytes).count();
        for request in &shape.requests {
            stream.write_all(request).unwrap();
            let (mut byte, mut left) = ([0; 1], lines(&shape.reply));
            while left > 0 {
                stream.read_exact(&mut byte).unwrap();
                left -= lines(&byte);
            }
        }
        for batch in [1, batch] {
            shape.exchange(&mut stream, &mut buffers, batch, KEYS.div_ceil(batch));
            let counted = allocations(|| {
                shape.exchange(&mut stream, &mut buffers, batch, REQUESTS / batch);
            });
            let bytes = LAST_BYTES.load(Ordering::Relaxed);
            assert!(
                counted <= shape.allocations_max,
                "{counted} allocations for {REQUESTS} of {}, {batch} in flight; the last had {bytes} bytes",
                shape.name
            );
        }
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of requests")]
fn what_is_known_is_answered_without_allocating() {
    let server = TestServer::start();
    // That it counts at all: a connection's first request makes a place for its words and letters.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let first = allocations(|| {
        stream.write_all(b"PEEK a b c\n").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    });
    assert!(
        first > 0,
        "the first request allocates, or nothing is counted"
    );

    // Longer than a turn: a worker's first makes room in the runtime for those that go on after the others.
    let keys = (0..10_000).map(uuid).collect::<Vec<_>>().join(" ");
    let mut each_worker = [server.connect(), server.connect()];
    for client in &mut each_worker {
        client.send(format!("MSEEN 1ms {keys}\n"));
        assert_eq!(client.line().len(), 10_000);
    }

    let line = |text: String| text.into_bytes();
    let batch_of = |n| (0..MSEEN_KEYS).map(move |i| uuid(n % 10 * MSEEN_KEYS + i));
    assert_allocates_nothing(
        &server,
        &[
            Shape::new(
                "SEEN key ttl",
                |n| line(format!("SEEN {} 1h\n", uuid(n))),
                "DUP\n",
            ),
            Shape::new("SEEN key", |n| line(format!("SEEN order-{n}\r\n")), "DUP\n"),
            Shape::new(
                "SEEN of long keys",
                |n| {
                    line(format!(
                        "SEEN https://example.org/a/rather/long/path/{n} 1h\n"
                    ))
                },
                "DUP\n",
            ),
            Shape::new(
                "SEEN of quoted keys",
                |n| line(format!("SEEN \"tenant\\t{n}\" 1h\n")),
                "DUP\n",
            ),
            Shape::new(
                "MSEEN",
                |n| {
                    line(format!(
                        "MSEEN 1h {}\n",
                        batch_of(n).collect::<Vec<_>>().join(" ")
                    ))
                },
                "D".repeat(MSEEN_KEYS) + "\n",
            ),
            Shape {
                allocations_max: REQUESTS / 100,
                ..Shape::new(
                    "SEEN of a key that was forgotten",
                    |n| line(format!("FORGET {0}\nSEEN {0} 1h\n", uuid(n))),
                    "OK 1\nNEW\n",
                )
            },
            Shape::new("TTL of no key", |n| line(format!("TTL no-{n}\n")), "NIL\n"),
        ],
    );
    let resp = |words: &[&str]| resp_request(words);
    assert_allocates_nothing(
        &server,
        &[
            Shape::new(
                "SET NX PX",
                |n| resp(&["SET", &uuid(n), "1", "NX", "PX", "3600000"]),
                "$-1\r\n",
            ),
            Shape::new("EXISTS", |n| resp(&["EXISTS", &uuid(n)]), ":1\r\n"),
            // A text's digest takes long without optimisations, so that a turn may end within a batch.
            Shape {
                allocations_max: REQUESTS / 100,
                ..Shape::new(
                    "EVAL that releases another's lock",
                    |n| resp(&["EVAL", RELEASE, "1", &uuid(n), "another"]),
                    ":0\r\n",
                )
            },
            // The same, and the wheel of deadlines grows now and then.
            Shape {
                allocations_max: REQUESTS / 100,
                ..Shape::new(
                    "EVAL that extends a lock",
                    |n| resp(&["EVAL", EXTEND, "1", &uuid(n), "1", "3600000"]),
                    ":1\r\n",
                )
            },
            Shape::new(
                "BF.ADD",
                |n| resp(&["BF.ADD", "filter", &uuid(n)]),
                ":0\r\n",
            ),
            Shape::new("SADD", |n| resp(&["SADD", "jobs:seen", &uuid(n)]), ":0\r\n"),
            Shape::new(
                "SADD of many",
                |n| resp(&["SADD", "jobs:seen", &uuid(n), "a", "b"]),
                ":0\r\n",
            ),
            Shape::new("TTL of a set", |_| resp(&["TTL", "jobs:seen"]), ":-1\r\n"),
            Shape::new(
                "DEL of no key",
                |n| resp(&["DEL", &format!("no-{n}")]),
                ":0\r\n",
            ),
        ],
    );
}
