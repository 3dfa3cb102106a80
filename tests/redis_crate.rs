//! The `redis` crate as a client, unchanged: what it needs at connecting, and what deduplication does with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::TestServer;
use redis::{Client, Commands, Connection, ErrorKind, RedisResult, Value, cmd, pipe};

fn connect(server: &TestServer, query: &str) -> Connection {
    let client = Client::open(format!("redis://{}/{query}", server.address)).unwrap();
    client.get_connection().unwrap()
}

/// Every conversation is held in both versions of the protocol.
fn in_both_versions(converse: impl Fn(&mut Connection)) {
    for query in ["", "?protocol=resp3"] {
        let server = TestServer::start();
        converse(&mut connect(&server, query));
    }
}

#[test]
fn set_nx_px_is_won_once() {
    in_both_versions(|connection| {
        let mut claim = || -> Option<String> {
            cmd("SET")
                .arg("order-17")
                .arg("worker-1")
                .arg("NX")
                .arg("PX")
                .arg(60_000)
                .query(connection)
                .unwrap()
        };
        assert_eq!(claim().as_deref(), Some("OK"));
        assert_eq!(claim(), None);
        let holder: String = connection.get("order-17").unwrap();
        assert_eq!(holder, "worker-1");
        let left: i64 = connection.pttl("order-17").unwrap();
        assert!((1..=60_000).contains(&left), "{left}");
        let none: Option<String> = connection.get("none").unwrap();
        assert_eq!(none, None);
    });
}

#[test]
fn typed_commands_mean_what_redis_means() {
    in_both_versions(|connection| {
        let () = connection.set("bytes", b"\x00\xff\r\n".as_slice()).unwrap();
        let bytes: Vec<u8> = connection.get("bytes").unwrap();
        assert_eq!(bytes, b"\x00\xff\r\n");
        let first: bool = connection.set_nx("lock", 1).unwrap();
        let second: bool = connection.set_nx("lock", 1).unwrap();
        assert_eq!((first, second), (true, false));
        let () = connection.set_ex("session", "data", 60).unwrap();
        let extended: bool = connection.expire("session", 120).unwrap();
        assert!(extended);
        let ttl: i64 = connection.ttl("session").unwrap();
        assert!((100..=120).contains(&ttl), "{ttl}");
        let values: Vec<Option<String>> = connection.mget(&["session", "none", "lock"]).unwrap();
        assert_eq!(
            values,
            [Some("data".to_owned()), None, Some("1".to_owned())]
        );
        let removed: i64 = connection.del(&["session", "lock", "none"]).unwrap();
        assert_eq!(removed, 2);
        let there: bool = connection.exists("session").unwrap();
        assert!(!there);
        let mut keys: Vec<String> = connection
            .scan()
            .unwrap()
            .collect::<RedisResult<_>>()
            .unwrap();
        keys.sort();
        assert_eq!(keys, ["bytes"]);
    });
}

#[test]
fn pipelines_keep_their_order() {
    in_both_versions(|connection| {
        let mut pipeline = pipe();
        for n in 0..1_000 {
            pipeline
                .cmd("SET")
                .arg(n % 500)
                .arg(n)
                .arg("NX")
                .arg("EX")
                .arg(60);
        }
        let answers: Vec<Option<String>> = pipeline.query(connection).unwrap();
        assert!(answers[..500].iter().all(Option::is_some));
        assert!(answers[500..].iter().all(Option::is_none));
    });
}

#[test]
fn an_atomic_pipeline_is_a_transaction() {
    in_both_versions(|connection| {
        let (before, held, ttl): (Option<String>, String, i64) = pipe()
            .atomic()
            .get("key")
            .set("key", "value")
            .ignore()
            .get("key")
            .expire("key", 60)
            .ignore()
            .ttl("key")
            .query(connection)
            .unwrap();
        assert_eq!((before, held.as_str()), (None, "value"));
        assert!((40..=60).contains(&ttl), "{ttl}");
    });
}

#[test]
fn this_protocol_s_own_verbs_are_commands() {
    in_both_versions(|connection| {
        let mut ask = |words: &[&str]| -> String {
            cmd(words[0]).arg(&words[1..]).query(connection).unwrap()
        };
        assert_eq!(ask(&["SEEN", "order-17", "60s"]), "NEW");
        assert_eq!(ask(&["ONCE.SEEN", "order-17", "60s"]), "DUP");
        assert_eq!(ask(&["MSEEN", "60s", "order-17", "a", "b", "a"]), "DNND");
        assert_eq!(ask(&["PEEK", "a", "c"]), "DN");
        let forgotten: i64 = cmd("FORGET").arg("a").arg("c").query(connection).unwrap();
        assert_eq!(forgotten, 1);
        let left: Option<i64> = cmd("ONCE.TTL").arg("a").query(connection).unwrap();
        assert_eq!(left, None);
        let facts: std::collections::HashMap<String, String> =
            cmd("INSPECT").arg("b").query(connection).unwrap();
        assert_eq!(facts["state"], "seen");
    });
}

#[test]
fn bloom_filters_answer_yes_and_no() {
    in_both_versions(|connection| {
        let first: bool = cmd("BF.ADD")
            .arg("emails")
            .arg("a@b.c")
            .query(connection)
            .unwrap();
        let again: bool = cmd("BF.ADD")
            .arg("emails")
            .arg("a@b.c")
            .query(connection)
            .unwrap();
        assert_eq!((first, again), (true, false));
        let many: Vec<bool> = cmd("BF.MADD")
            .arg("emails")
            .arg("a@b.c")
            .arg("d@e.f")
            .query(connection)
            .unwrap();
        assert_eq!(many, [false, true]);
    });
}

#[test]
fn a_database_is_a_namespace() {
    let server = TestServer::start();
    let () = connect(&server, "").set("key", "zero").unwrap();
    let () = connect(&server, "5").set("key", "five").unwrap();
    let value: String = connect(&server, "5").get("key").unwrap();
    assert_eq!(value, "five");
    assert_eq!(
        server.connect().ask_all("NS LIST").join(" | "),
        "ROWS 2 | db5 keys=1 | default keys=1"
    );
}

#[test]
fn errors_keep_their_words() {
    in_both_versions(|connection| {
        let unknown = cmd("HSET")
            .arg("h")
            .arg("f")
            .arg("v")
            .query::<Value>(connection)
            .unwrap_err();
        assert_eq!(
            unknown.kind(),
            ErrorKind::Server(redis::ServerErrorKind::ResponseError)
        );
        assert!(
            unknown.to_string().contains("unknown command 'HSET'"),
            "{unknown}"
        );
        let () = cmd("NS")
            .arg(&["SET", "small", "MAXKEYS", "1"])
            .query(connection)
            .unwrap();
        let () = cmd("USE").arg("small").query(connection).unwrap();
        let () = connection.set("a", 1).unwrap();
        let full = connection.set::<_, _, ()>("b", 1).unwrap_err();
        assert_eq!(full.code(), Some("OOM"), "{full}");
        let aborted = pipe()
            .atomic()
            .set("a", 2)
            .cmd("SET")
            .arg("a")
            .query::<Value>(connection)
            .unwrap_err();
        assert!(
            aborted
                .to_string()
                .to_lowercase()
                .contains("wrong number of arguments")
                || aborted.code() == Some("EXECABORT"),
            "{aborted}"
        );
        let value: String = connection.get("a").unwrap();
        assert_eq!(value, "1");
    });
}
