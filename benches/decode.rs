//! Bytes to commands and replies to bytes: what a connection does beside asking the store.
//!
//! `path` is the whole of it, for a request whose key was seen before. Instructions vary less than
//! nanoseconds on a machine that others use; valgrind counts those of three passes over a
//! full buffer, which is three times 1,424 requests `SEEN`, 17 `MSEEN`, or 704 `SET`:
//!
//! ```text
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='decode::counted_pass' \
//!     target/release/deps/decode-... --test path/resp-set-nx-px
//! ```

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onced::command::{Command, Reply, lookup_line, lookup_resp};
use onced::limits::Limits;
use onced::wire::{Decoded, Decoder, Dialect};

/// What one read brings at most.
const BUFFER_BYTES: usize = 64 << 10;
const BATCH: usize = 100;
const REPLIES: usize = 1_000;

fn uuid(n: usize) -> String {
    format!("38101a0b-2096-447d-96ea-a692{n:08x}")
}

fn line_seen(n: usize) -> String {
    format!("SEEN {} 24h\n", uuid(n))
}

fn line_mseen(n: usize) -> String {
    let keys: Vec<_> = (0..BATCH).map(|i| uuid(n * BATCH + i)).collect();
    format!("MSEEN 24h {}\n", keys.join(" "))
}

fn line_quoted(n: usize) -> String {
    format!("SEEN \"tenant {n}\\x00order\\t{n}\" 24h\n")
}

fn resp_set(n: usize) -> String {
    let (key, len) = (uuid(n), uuid(n).len());
    format!(
        "*6\r\n$3\r\nSET\r\n${len}\r\n{key}\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$8\r\n86400000\r\n"
    )
}

/// As many whole requests as one buffer holds, and how many they are.
fn pipelined(request: fn(usize) -> String) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    for n in 0.. {
        let request = request(n);
        if bytes.len() + request.len() > BUFFER_BYTES {
            return (bytes, n);
        }
        bytes.extend_from_slice(request.as_bytes());
    }
    unreachable!("the buffer is finite")
}

/// Takes all requests to their commands; returns how many there were, with how many keys.
fn decode(bytes: &[u8], limits: &Limits) -> (usize, usize) {
    let mut keys = 0;
    let requests = each_command(bytes, limits, |command| {
        keys += match black_box(command) {
            Command::MSeen { keys, .. } => keys.len(),
            _ => 1,
        };
    });
    (requests, keys)
}

/// What a connection does with a buffer full of requests, but that nobody asks the store: every
/// key was seen before. Returns how many requests there were.
fn path(bytes: &[u8], letters: &[u8], limits: &Limits, out: &mut Vec<u8>) -> usize {
    out.clear();
    let dialect = if bytes[0] == b'*' {
        Dialect::Resp(2)
    } else {
        Dialect::Line
    };
    each_command(bytes, limits, |command| {
        let reply = match black_box(command) {
            Command::Set(_) => Reply::Nil,
            Command::MSeen { keys, .. } => Reply::Letters(&letters[..keys.len()]),
            _ => Reply::Word("DUP"),
        };
        dialect.encode(&black_box(reply), out);
    })
}

/// For valgrind to find.
#[inline(never)]
fn counted_pass(bytes: &[u8], letters: &[u8], limits: &Limits, out: &mut Vec<u8>) -> usize {
    path(bytes, letters, limits, out)
}

fn each_command(bytes: &[u8], limits: &Limits, mut with: impl FnMut(Command<'_>)) -> usize {
    let mut decoder = Decoder::default();
    let (mut at, mut requests) = (0, 0);
    while let Decoded::Request { consumed, args } = decoder.next(&bytes[at..], limits) {
        let verb = if bytes[0] == b'*' {
            lookup_resp(args.verb())
        } else {
            lookup_line(args.verb())
        };
        let verb = verb.expect("a known verb");
        match verb.spec().parse(&args, limits) {
            Ok(command) => with(command),
            Err(error) => panic!("{error}"),
        }
        requests += 1;
        at += consumed;
    }
    assert_eq!(at, bytes.len());
    requests
}

type Request = fn(usize) -> String;

fn paths(criterion: &mut Criterion) {
    let shapes: [(&str, Request, usize); 3] = [
        ("line-seen", line_seen, 4),
        ("line-mseen-100", line_mseen, BATCH + 1),
        ("resp-set-nx-px", resp_set, 5),
    ];
    let letters = [b'D'; BATCH];
    let mut group = criterion.benchmark_group("path");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for (name, request, reply_bytes) in shapes {
        let (bytes, count) = pipelined(request);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            let mut out = Vec::with_capacity(BUFFER_BYTES);
            // What is made at the first use is made.
            path(&bytes, &letters, &Limits::DEFAULT, &mut out);
            let requests = counted_pass(&bytes, &letters, &Limits::DEFAULT, &mut out);
            assert_eq!((requests, out.len()), (count, count * reply_bytes));
            bencher.iter(|| path(black_box(&bytes), &letters, &Limits::DEFAULT, &mut out));
        });
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let shapes: [(&str, Request, usize); 4] = [
        ("line-seen", line_seen, 1),
        ("line-seen-quoted", line_quoted, 1),
        ("line-mseen-100", line_mseen, BATCH),
        ("resp-set-nx-px", resp_set, 1),
    ];
    for (name, request, keys_each) in shapes {
        let (bytes, count) = pipelined(request);
        assert_eq!(decode(&bytes, &Limits::DEFAULT), (count, count * keys_each));
        for (unit, throughput) in [
            ("requests", Throughput::Elements(count as u64)),
            ("bytes", Throughput::Bytes(bytes.len() as u64)),
        ] {
            let mut group = criterion.benchmark_group(format!("decode/{unit}"));
            group
                .sample_size(10)
                .warm_up_time(Duration::from_millis(300))
                .measurement_time(Duration::from_secs(1))
                .throughput(throughput);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let (requests, _) = decode(black_box(&bytes), &Limits::DEFAULT);
                    assert_eq!(requests, count);
                });
            });
            group.finish();
        }
    }
}

fn encoding(criterion: &mut Criterion) {
    let letters = [b'N'; BATCH];
    let replies = [
        ("word", Reply::Word("NEW"), 4, 6),
        ("nil", Reply::Nil, 4, 5),
        ("letters-100", Reply::Letters(&letters), 101, 108),
        ("number", Reply::Number(1_790_000_000_000), 14, 16),
    ];
    let mut group = criterion.benchmark_group("encode");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(REPLIES as u64));
    for (name, reply, line_bytes, resp_bytes) in replies {
        for (dialect, bytes_each) in [(Dialect::Line, line_bytes), (Dialect::Resp(2), resp_bytes)] {
            let mut out = Vec::new();
            group.bench_function(format!("{name}/{dialect:?}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    for _ in 0..REPLIES {
                        dialect.encode(black_box(&reply), &mut out);
                    }
                    assert_eq!(out.len(), bytes_each * REPLIES);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, paths, decoding, encoding);
criterion_main!(benches);
