//! Faults that were there once, each with its story.

mod common;

use common::TestServer;

/// A connection that had used a namespace made it again, after it was dropped, by any command
/// at all: `NS LIST` showed what `NS DROP` had just removed.
#[test]
fn a_dropped_namespace_comes_back_only_when_it_is_used() {
    let server = TestServer::start();
    let mut client = server.connect();
    for (request, reply) in [
        ("USE gone", "OK"),
        ("SEEN k 60s", "NEW"),
        ("NS DROP gone", "OK"),
        ("TIME", ""),
        ("NS SET other", "OK"),
        ("SEEN k 60s NS other", "NEW"),
        ("TTL k NS other", ""),
        ("NS LIST", "ROWS 2\ndefault keys=0\nother keys=1"),
        ("SEEN k 60s", "NEW"),
        (
            "NS LIST",
            "ROWS 3\ndefault keys=0\ngone keys=1\nother keys=1",
        ),
    ] {
        let answer = client.ask_all(request).join("\n");
        assert!(reply.is_empty() || answer == reply, "{request}: {answer}");
    }
}
