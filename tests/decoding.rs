//! How the bytes of a conversation are cut into pieces changes nothing: both decoders, fed a
//! stream in two pieces at every place and byte by byte, find the same requests and refusals
//! as in one piece. And no bytes make them panic or go round in circles.

mod common;

use common::resp_request;
use onced::command::lookup_line;
use onced::limits::Limits;
use onced::wire::{Decoded, Decoder};
use proptest::collection::vec;
use proptest::prelude::*;

/// What a decoder made of a stream; skipped bytes leave no trace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Its words, and its body if it came with one.
    Request(Vec<Vec<u8>>, Option<Vec<u8>>),
    Refused {
        text: String,
        close: bool,
    },
}

/// Small enough that a short stream is over them.
fn small_limits() -> Limits {
    let limits = Limits {
        request_bytes_max: 64,
        key_bytes_max: 32,
        body_bytes_max: 16,
        ..Limits::DEFAULT
    };
    assert!(limits.request_bytes_max < Limits::DEFAULT.request_bytes_max);
    limits
}

/// Feeds the pieces as a connection does: what is not consumed comes again, with more.
/// Stops where a connection would close. Returns the outcomes and how often it asked.
fn decode(pieces: &[&[u8]], limits: &Limits) -> (Vec<Outcome>, usize) {
    let mut decoder = Decoder::default();
    let (mut outcomes, mut asked) = (Vec::new(), 0);
    let mut input: Vec<u8> = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        let mut at = 0;
        loop {
            asked += 1;
            let (consumed, outcome, refused_verb) = match decoder.next(&input[at..], limits) {
                Decoded::Incomplete => break,
                Decoded::Skip { consumed } => (consumed, None, false),
                Decoded::Request { consumed, args } => {
                    let words: Vec<_> = std::iter::once(args.verb())
                        .chain(args.rest(0).iter())
                        .map(<[u8]>::to_vec)
                        .collect();
                    let refused = lookup_line(&words[0]).is_none();
                    let body = args.body().map(<[u8]>::to_vec);
                    (consumed, Some(Outcome::Request(words, body)), refused)
                }
                Decoded::Refused {
                    consumed,
                    error,
                    close,
                } => {
                    let text = error.to_string();
                    (consumed, Some(Outcome::Refused { text, close }), false)
                }
            };
            assert!(
                consumed > 0 && at + consumed <= input.len(),
                "{consumed} bytes are done with"
            );
            let request = at..at + consumed;
            at += consumed;
            let closes = matches!(outcome, Some(Outcome::Refused { close: true, .. }));
            outcomes.extend(outcome);
            if closes || refused_verb && decoder.refuse(&input[request]) {
                outcomes.extend((!closes).then(|| Outcome::Refused {
                    text: "closed".to_owned(),
                    close: true,
                }));
                return (outcomes, asked);
            }
        }
        input.drain(..at);
    }
    (outcomes, asked)
}

fn assert_same_in_pieces(stream: &[u8], limits: &Limits) {
    let (whole, _) = decode(&[stream], limits);
    for cut in 0..=stream.len() {
        let (front, back) = stream.split_at(cut);
        let (cut_once, _) = decode(&[front, back], limits);
        assert_eq!(cut_once, whole, "{} cut at {cut}", stream.escape_ascii());
    }
    let bytes: Vec<_> = stream.chunks(1).collect();
    assert_eq!(
        decode(&bytes, limits).0,
        whole,
        "{} byte by byte",
        stream.escape_ascii()
    );
}

const LINES: &[&[u8]] = &[
    b"",
    b"\n",
    b"\r\n\r\n\n",
    b"PING\n",
    b"PING\r\n",
    b"PING\r\r\n",
    b"  \t\nPING \t \n",
    b"SEEN a 60s\nSEEN b 60s\r\nMSEEN 60s a b c\n",
    b"SEEN \"a b\" 60s\nSEEN \"\\x00\\xff\\\"\\\\\\n\" 60s\nSEEN \"\" 60s\n",
    b"SEEN \0\x01\xff\r 60s\n",
    b"SEEN \"a\nPING\n",
    b"SEEN \"a\\\nPING\nSEEN \"\\q\"\nSEEN \"\\x1\"\nSEEN \"a\"b\nPING\n",
    // Bodies behind refused verbs and refused lines.
    b"FOO LEN 5\nPING\n\nPING\n",
    b"FOO LEN 5\r\nPING\n\r\nPING\r\n",
    b"FOO LEN 0\n\nPING\nfoo len 0\r\n\r\nPING\n",
    b"FOO \"x LEN 5\nPING\n\nPING\n",
    b"FOO LEN 5\nPINGXX\nPING\n",
    b"FOO LEN 5\nPING\n\rPING\n",
    b"FOO LEN 5\nPI",
    b"FOO LEN 16777217\nPING\n",
    b"FOO LEN -1\nPING\n",
    b"FOO LEN x\nPING\n",
    b"FOO LEN 99999999999999999999\nPING\n",
    b"FOO \"LEN x\nPING\n",
    b"FOO LEN 3 more\nabc\nPING\n",
    // Bodies of verbs that take one.
    b"COMPLETE k 1 LEN 5\nPING\n\nPING\n",
    b"complete k 1 len 5\r\nPING\n\r\nPING\r\n",
    b"FAIL k 1 FINAL LEN 0\n\nPING\nFAIL k 1 FINAL LEN 0\r\n\r\nPING\n",
    b"COMPLETE k 1 LEN 5\nPINGXX\nPING\n",
    b"COMPLETE k 1 LEN 5\nPING\n\rPING\n",
    b"COMPLETE k 1 LEN 5\nPI",
    b"COMPLETE k 1 LEN 16\n0123456789abcdef\nPING\n",
    b"COMPLETE k 1 LEN 17\n0123456789abcdef\n\nPING\n",
    b"COMPLETE k 1 LEN 16777217\nPING\n",
    b"COMPLETE k 1 LEN x\nPING\n",
    b"COMPLETE k 1 \"LEN\" 5\nPING\n",
    b"COMPLETE LEN 2\nab\nCOMPLETE \"\\x41\" 1 LEN 2\n\r\n\nPING\n",
    b"COMPLETE \"k LEN 4\nPING\nPING\n",
    b"LEN 4\nPING\nCOMPLETE\nFAIL LEN\nPING\n",
    b"PEEK LEN 5\nPING\n",
    // Over the line's limit of 64 bytes, and just within.
    b"PING 01234567890123456789012345678901234567890123456789012345678\nPING\n",
    b"PING 01234567890123456789012345678901234567890123456789012345678\r\nPING\n",
    b"PING 012345678901234567890123456789012345678901234567890123456789\nPING\n",
    b"PING 012345678901234567890123456789012345678901234567890123456789\r\nPING\n",
    b"PING 01234567890123456789012345678901234567890123456789012345678\rx\nPING\n",
    b"PING 01234567890123456789012345678901234567890123456789012345678901234567890123456789",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"$4\r\nPING\r\n",
    b"unfinished",
];

const RESP: &[&[u8]] = &[
    b"*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n*3\r\n$4\r\nSEEN\r\n$1\r\na\r\n$3\r\n60s\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$3\r\n\0\xff*\r\n",
    b"*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"*-9223372036854775808\r\n*1\r\n$4\r\nPING\r\n",
    b"*2147483647\r\n$4\r\nPING\r\n",
    b"*1048577\r\n",
    b"*1048576\r\n$1\r\na",
    b"*9223372036854775808\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*1\n$4\r\nPING\r\n",
    b"*\r\n",
    b"*x\r\n",
    b"*1111111111111111111111111111111111111111",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$4294967296\r\n",
    b"*1\r\n$9223372036854775807\r\nPING\r\n",
    b"*1\r\n$16777217\r\nPING\r\n",
    b"*1\r\n$4\r\nPINGXX*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\rX",
    b"*1\r\n+PING\r\n",
    b"*1\r\n$4\nPING\r\n",
    b"*2\r\n$4\r\nPING\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n\rX",
    b"*2\r\n$4\r\nECHO\r\n$9\r\nhalf",
];

#[test]
fn lines_in_any_pieces_are_the_same_requests() {
    for stream in LINES {
        assert_same_in_pieces(stream, &small_limits());
        assert_same_in_pieces(stream, &Limits::DEFAULT);
    }
}

#[test]
fn resp_in_any_pieces_is_the_same_requests() {
    for stream in RESP {
        assert_same_in_pieces(stream, &small_limits());
        assert_same_in_pieces(stream, &Limits::DEFAULT);
    }
}

#[test]
fn a_resp_request_over_the_limit_is_refused_in_any_pieces() {
    let long = "v".repeat(60);
    let ping = resp_request(&["PING"]);
    for words in [
        &["SET", "k", long.as_str()][..],
        &[long.as_str()],
        &["SET", long.as_str(), "v", "NX", "PX", "1"],
        &["MSEEN", "1s", "key-1", "key-2", "key-3", "key-4", "key-5"],
        &["MSEEN", "1s", "", "", "", "", "", "", "", "", "", "", ""],
    ] {
        let mut stream = [resp_request(words), ping.clone()].concat();
        assert_same_in_pieces(&stream, &small_limits());
        let refused = Outcome::Refused {
            text: "TOOBIG the request is over 64 bytes".to_owned(),
            close: false,
        };
        let ping = Outcome::Request(vec![b"PING".to_vec()], None);
        assert_eq!(decode(&[&stream], &small_limits()).0, [refused, ping]);
        // Broken in the part that is thrown away.
        let end = stream.len() - b"*1\r\n$4\r\nPING\r\n".len();
        stream[end - 1] = b'!';
        assert_same_in_pieces(&stream, &small_limits());
        // An element that announces more than is ever thrown away.
        let mut huge = format!("*9\r\n$60\r\n{long}\r\n").into_bytes();
        huge.extend_from_slice(b"$16777216\r\n");
        assert_same_in_pieces(&huge, &small_limits());
    }
}

/// At most: once for each request, skip or refusal, which takes a byte at least, and once more for each piece.
fn assert_bounded(pieces: &[&[u8]], limits: &Limits) {
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    let (_, asked) = decode(pieces, limits);
    assert!(
        asked <= bytes + pieces.len(),
        "asked {asked} times for {bytes} bytes"
    );
}

/// Bytes that look like requests more often than noise does.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"*1\r\n"[..],
        b"*2\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"$4\r\n",
        b"$1\r\n",
        b"$0\r\n\r\n",
        b"PING\r\n",
        b"$60\r\n",
        b"$100\r\n",
        b"a\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"SEEN ",
        b"k",
        b" 60s",
        b"\"",
        b"\\",
        b"\\x0",
        b"FOO LEN 3\n",
        b"abc\n",
        b" LEN 5\n",
        b"PING\n",
        b"*",
        b"$",
        b"9",
    ]);
    let piece = prop_oneof![8 => known.prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..8)];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_neither_panics_nor_loops(bytes in vec(any::<u8>(), 0..600), resp: bool) {
        let stream = if resp { [b"*", &bytes[..]].concat() } else { bytes };
        assert_bounded(&[&stream], &small_limits());
        assert_bounded(&stream.chunks(7).collect::<Vec<_>>(), &small_limits());
    }

    #[test]
    fn near_misses_are_the_same_in_any_pieces(stream in fragments(), cuts in vec(0_usize..400, 0..8)) {
        let (whole, _) = decode(&[&stream], &small_limits());
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        pieces.push(&stream[from..]);
        prop_assert_eq!(&decode(&pieces, &small_limits()).0, &whole);
        assert_bounded(&pieces, &small_limits());
        let bytes: Vec<_> = stream.chunks(1).collect();
        prop_assert_eq!(&decode(&bytes, &small_limits()).0, &whole);
    }
}
