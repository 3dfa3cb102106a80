//! The rows of this protocol's own verbs.

use super::super::native as build;
use super::{ALL_KEYS, Effect, Home, KEYS_FROM_2, KeyWords, NO_KEY, ONE_KEY, Spec};

const ANY: usize = usize::MAX;

const BASE: Spec = Spec {
    name: "",
    home: Home::Native,
    usage: "",
    words_min: 0,
    words_max: 0,
    effect: Effect::Read,
    keys: NO_KEY,
    replies: "",
    summary: "",
    example: ("", ""),
    build: build::version,
};

const fn verb(
    name: &'static str,
    usage: &'static str,
    words_min: usize,
    words_max: usize,
    effect: Effect,
    keys: KeyWords,
) -> Spec {
    Spec {
        name,
        usage,
        words_min,
        words_max,
        effect,
        keys,
        ..BASE
    }
}

pub(super) static ROWS: &[Spec] = &[
    Spec {
        replies: "NEW, DUP, MISMATCH, UNSURE",
        summary: "Asks whether the key is there for the first time within its window, and remembers it.",
        example: ("SEEN order-17 60s", "NEW"),
        build: build::seen,
        ..verb(
            "SEEN",
            "key [ttl] [SLIDE|FIXED] [FP hex] [AT unixms] [NS name]",
            1,
            9,
            Effect::Write,
            ONE_KEY,
        )
    },
    Spec {
        replies: "one letter per key: N new, D seen, U unsure, E not stored",
        summary: "Asks for many keys in one request; a repeat within it is D.",
        example: ("MSEEN 60s a b b", "NND"),
        build: build::mseen,
        ..verb("MSEEN", "ttl key...", 2, ANY, Effect::Write, KEYS_FROM_2)
    },
    Spec {
        replies: "one letter per key: N not there, D seen",
        summary: "Looks without changing anything.",
        example: ("PEEK order-18", "N"),
        build: build::peek,
        ..verb("PEEK", "key...", 1, ANY, Effect::Read, ALL_KEYS)
    },
    Spec {
        replies: "OK n",
        summary: "Forgets keys; n is how many were there.",
        example: ("FORGET order-18", "OK 0"),
        build: build::forget,
        ..verb("FORGET", "key...", 1, ANY, Effect::Write, ALL_KEYS)
    },
    Spec {
        replies: "OK, NIL",
        summary: "Lets the key's window end ttl from now; with GT only if that is later than it would.",
        example: ("TOUCH order-18 5m", "NIL"),
        build: build::touch,
        ..verb(
            "TOUCH",
            "key ttl [GT] [NS name]",
            2,
            5,
            Effect::Write,
            ONE_KEY,
        )
    },
    Spec {
        replies: "milliseconds, NIL",
        summary: "Tells how long the key's window still lasts.",
        example: ("TTL order-18", "NIL"),
        build: build::ttl_left,
        ..verb("TTL", "key [NS name]", 1, 3, Effect::Read, ONE_KEY)
    },
    Spec {
        replies: "ROWS n of name and value, NIL",
        summary: "Tells what is known of a key: state, expires_in_ms, fingerprint.",
        example: ("INSPECT order-18", "NIL"),
        build: build::inspect,
        ..verb("INSPECT", "key [NS name]", 1, 3, Effect::Read, ONE_KEY)
    },
    Spec {
        replies: "OK",
        summary: "Chooses this connection's namespace; one that is not there is made.",
        example: ("USE payments", "OK"),
        build: build::use_namespace,
        ..verb("USE", "name", 1, 1, Effect::Connection, NO_KEY)
    },
    Spec {
        replies: "ROWS n, OK",
        summary: "Lists, shows, makes or sets, empties and removes namespaces.",
        example: ("NS SET payments TTL 24h MODE SLIDE", "OK"),
        build: build::namespace,
        ..verb(
            "NS",
            "LIST | INFO name | SET name [TTL d] [MAXTTL d] [MODE FIXED|SLIDE] [MAXKEYS n] [FULL REJECT|EVICT] [KEYS EXACT|DIGEST] [UNSURE NEW|REPORT] [COVERED] | PURGE name | DROP name",
            1,
            17,
            Effect::Admin,
            NO_KEY,
        )
    },
    Spec {
        replies: "ROWS n of name and value",
        summary: "Counters and gauges of the server, or of one namespace.",
        build: build::stats,
        ..verb("STATS", "[name]", 0, 1, Effect::Admin, NO_KEY)
    },
    Spec {
        replies: "OK",
        summary: "Answers once everything answered so far is on the disk, whatever --fsync says; ERR NOLOG without --data-dir.",
        build: build::sync,
        ..verb("SYNC", "", 0, 0, Effect::Connection, NO_KEY)
    },
    Spec {
        replies: "PONG, or the word",
        summary: "Answers.",
        example: ("PING", "PONG"),
        build: build::ping,
        ..verb("PING", "[word]", 0, 1, Effect::Connection, NO_KEY)
    },
    Spec {
        replies: "Unix milliseconds",
        summary: "Tells the server's clock.",
        build: build::time,
        ..verb("TIME", "", 0, 0, Effect::Read, NO_KEY)
    },
    Spec {
        replies: "the version",
        summary: "Tells the server's version.",
        build: build::version,
        ..verb("VERSION", "", 0, 0, Effect::Read, NO_KEY)
    },
    Spec {
        replies: "ROWS n",
        summary: "Lists the verbs, or tells about one.",
        build: build::help,
        ..verb("HELP", "[verb]", 0, 1, Effect::Read, NO_KEY)
    },
    Spec {
        replies: "BYE",
        summary: "Ends the connection once all replies are sent.",
        example: ("QUIT", "BYE"),
        build: build::quit,
        ..verb("QUIT", "", 0, 0, Effect::Connection, NO_KEY)
    },
];
