//! The rows of this protocol's own verbs.

use super::super::native as build;
use super::super::records;
use super::{
    ALL_KEYS, Effect, Home, KEYS_FROM_2, KEYS_FROM_3, KEYS_IN_PAIRS, KeyWords, NO_KEY, ONE_KEY,
    Spec,
};

const ANY: usize = usize::MAX;

const BASE: Spec = Spec {
    name: "",
    home: Home::Native,
    usage: "",
    words_min: 0,
    words_max: 0,
    effect: Effect::Read,
    keys: NO_KEY,
    rests_on_log: true,
    while_loading: false,
    grants_lease: false,
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
        replies: "one letter per key: N not there, D seen, B in progress, R free to run again, C completed, F failed for good",
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
        summary: "Tells what is known of a key: state, expires_in_ms, fingerprint; of a record also age_ms, attempt, and lease_ms or code and size.",
        example: ("INSPECT order-18", "NIL"),
        build: build::inspect,
        ..verb("INSPECT", "key [NS name]", 1, 3, Effect::Read, ONE_KEY)
    },
    Spec {
        replies: "RUN token lease_ms attempt, BUSY retry_ms, DONE code len and body, FAILED code len and body, MISMATCH, UNSURE token lease_ms attempt",
        summary: "Asks whether to do the work behind the key: RUN tells one to, everyone else that it is under way or what came of it. WAIT holds the reply while it is under way.",
        grants_lease: true,
        build: records::begin,
        ..verb(
            "BEGIN",
            "key [LEASE d] [TTL d] [FP hex] [OWNER id] [WAIT d] [NS name]",
            1,
            13,
            Effect::Write,
            ONE_KEY,
        )
    },
    Spec {
        replies: "OK lease_ms, STALE, GONE",
        summary: "Extends the lease of who was told to run: it lasts lease_ms from now.",
        example: ("RENEW job-7 1", "GONE"),
        build: records::renew,
        ..verb(
            "RENEW",
            "key token [LEASE d] [NS name]",
            2,
            6,
            Effect::Write,
            ONE_KEY,
        )
    },
    Spec {
        replies: "OK, STALE, GONE, MISMATCH",
        summary: "Says that the work is done, and leaves a code and a body for everyone who asks later. ADOPT stores that also where the record is gone.",
        example: ("COMPLETE job-7 1 CODE 200 BODY done", "GONE"),
        build: records::complete,
        ..verb(
            "COMPLETE",
            "key token [CODE n] [TTL d] [FP hex] [ADOPT] [NS name] [BODY word | LEN n, and the body behind the line]",
            2,
            13,
            Effect::Write,
            ONE_KEY,
        )
    },
    Spec {
        replies: "OK, STALE, GONE",
        summary: "Says that the work failed: RETRY lets anybody begin it again, FINAL makes the failure the answer.",
        example: ("FAIL job-7 1 RETRY", "GONE"),
        build: records::fail,
        ..verb(
            "FAIL",
            "key token RETRY [NS name] | key token FINAL [CODE n] [TTL d] [NS name] [BODY word | LEN n, and the body behind the line]",
            3,
            11,
            Effect::Write,
            ONE_KEY,
        )
    },
    Spec {
        replies: "DONE code len and body, FAILED code len and body, FREE, TIMEOUT",
        summary: "Holds the reply until the work is settled, or is free to be begun: FREE.",
        example: ("WAIT job-7 TIMEOUT 1s", "FREE"),
        build: records::wait,
        ..verb(
            "WAIT",
            "key [TIMEOUT d] [NS name]",
            1,
            5,
            Effect::Read,
            ONE_KEY,
        )
    },
    Spec {
        replies: "an item per key: N:token run it, B busy, C completed, F failed for good, D seen or a repeat, E not stored",
        summary: "Begins the work behind many keys.",
        grants_lease: true,
        build: records::mbegin,
        ..verb(
            "MBEGIN",
            "ttl lease key...",
            3,
            ANY,
            Effect::Write,
            KEYS_FROM_3,
        )
    },
    Spec {
        replies: "one letter per pair: O ok, S stale, G gone, E not stored",
        summary: "Says that the work behind many keys is done.",
        example: ("MCOMPLETE job-7 1 job-8 2", "GG"),
        build: records::mcomplete,
        ..verb(
            "MCOMPLETE",
            "key token...",
            2,
            ANY,
            Effect::Write,
            KEYS_IN_PAIRS,
        )
    },
    Spec {
        replies: "one letter per pair: O ok, S stale, G gone, E not stored",
        summary: "Lets anybody begin the work behind many keys again.",
        example: ("MFAIL job-7 1 job-8 2", "GG"),
        build: records::mfail,
        ..verb(
            "MFAIL",
            "key token...",
            2,
            ANY,
            Effect::Write,
            KEYS_IN_PAIRS,
        )
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
            "LIST | INFO name | SET name [TTL d] [MAXTTL d] [MODE FIXED|SLIDE] [MAXKEYS n] [FULL REJECT|EVICT] [KEYS EXACT|DIGEST] [UNSURE NEW|REPORT] [COVERED] | PURGE name [FORCE] | DROP name [FORCE]",
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
        rests_on_log: false,
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
        rests_on_log: false,
        ..verb("PING", "[word]", 0, 1, Effect::Connection, NO_KEY)
    },
    Spec {
        replies: "Unix milliseconds",
        summary: "Tells the time.",
        build: build::time,
        rests_on_log: false,
        ..verb("TIME", "", 0, 0, Effect::Read, NO_KEY)
    },
    Spec {
        replies: "the version",
        summary: "Tells the server's version.",
        build: build::version,
        rests_on_log: false,
        ..verb("VERSION", "", 0, 0, Effect::Read, NO_KEY)
    },
    Spec {
        replies: "ROWS n",
        summary: "Lists the verbs, or tells about one.",
        build: build::help,
        rests_on_log: false,
        ..verb("HELP", "[verb]", 0, 1, Effect::Read, NO_KEY)
    },
    Spec {
        replies: "BYE",
        summary: "Ends the connection once all replies are sent.",
        example: ("QUIT", "BYE"),
        build: build::quit,
        rests_on_log: false,
        while_loading: true,
        ..verb("QUIT", "", 0, 0, Effect::Connection, NO_KEY)
    },
];
