//! The programs in `examples/` do what they say, run as the README says.
//!
//! The one in Python is run by `tests/interop/run`, which has its client library.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::TestServer;
use common::process::signal;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::time::{sleep, timeout};

const README: &str = include_str!("../README.md");

/// An example that is running; it ends when this is dropped.
struct Example {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Example {
    /// Runs it as the README says, but on another port.
    fn run(name: &str, variables: &[(&str, &str)]) -> Self {
        let line = format!("cargo run --example {name}");
        assert!(
            README.lines().any(|shown| shown == line),
            "the README shows no '{line}'"
        );
        let mut words = line.split(' ');
        words.next();
        let mut child = Command::new(env!("CARGO"))
            .args(words)
            .arg("--quiet")
            .env_remove("ONCED_SERVER")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// The next line that it says, from which this makes something.
    fn line<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> T {
        let mut all = String::new();
        loop {
            let begins = all.len();
            assert!(
                self.said.read_line(&mut all).unwrap() > 0,
                "it ended:\n{all}"
            );
            if let Some(found) = find(&all[begins..]) {
                return found;
            }
        }
    }

    /// All that it says until it ends, which must be with status 0.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _as_above = self.child.wait();
    }
}

/// The number behind some words.
fn number_behind(text: &str, words: &str) -> u64 {
    let behind = text
        .split_once(words)
        .unwrap_or_else(|| panic!("no '{words}' in:\n{text}"))
        .1;
    let digits = behind
        .split(|character: char| !character.is_ascii_digit())
        .next();
    digits.unwrap().parse().unwrap()
}

#[test]
fn consumers_that_die_come_to_the_right_total() {
    let said = Example::run("stream_consumer", &[]).rest();
    let worked = number_behind(&said, "worked on ");
    assert_eq!(number_behind(&said, "\ntotal "), 50_005_000, "{said}");
    assert!(number_behind(&said, "times; ") > 0, "some died: {said}");
    // Only what a dead consumer had begun is begun again.
    assert_eq!(worked, 10_000 + number_behind(&said, "times: "));
    assert!(worked < 12_000, "{said}");
}

/// Passes bytes on to a server, and breaks each connection after so many replies, before the last one is told.
fn loses_replies(server: String, every: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(&server) else {
                return;
            };
            let (mut from_near, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_near, &mut to_far));
            thread::spawn(move || {
                let (mut far, mut near) = (far, near);
                let mut bytes = vec![0; 1 << 20];
                for _ in 1..every {
                    match far.read(&mut bytes) {
                        Ok(read @ 1..) if near.write_all(&bytes[..read]).is_ok() => {}
                        _ => break,
                    }
                }
                let _the_last_one = far.read(&mut bytes);
                let _either_way = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

/// Replies are lost all the time, and for a while there is no room for new keys.
#[test]
fn consumers_come_to_the_right_total_whatever_becomes_of_replies() {
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET default MAXKEYS 6000"), "OK");
    let through = loses_replies(server.address.clone(), 9);
    let mut consumers = Example::run("stream_consumer", &[("ONCED_SERVER", &through)]);
    consumers.line(|line| line.starts_with("onced is at ").then_some(()));
    common::eventually("some found no room", || client.gauge("refused_keys") > 0);
    assert_eq!(client.ask("NS SET default MAXKEYS 0"), "OK");
    let said = consumers.rest();
    assert_eq!(number_behind(&said, "\ntotal "), 50_005_000, "{said}");
    assert!(client.gauge("connections_total") > 20);
}

#[test]
fn an_outbox_is_published_and_every_message_taken_in_once() {
    let said = Example::run("outbox", &[]).rest();
    assert_eq!(number_behind(&said, "took in "), 2_000, "{said}");
    let published = number_behind(&said, "published ");
    assert_eq!(
        published,
        2_000 + number_behind(&said, "dropped "),
        "{said}"
    );
    assert!(number_behind(&said, "times; ") > 0, "some died: {said}");
    assert!(number_behind(&said, "longest ") < 10_000, "{said}");
}

/// The payment service, and its clients.
struct Payments {
    url: String,
    http: Client,
}

impl Payments {
    fn request(&self, key: &str, card: &str) -> RequestBuilder {
        let order = serde_json::json!({"card": card, "cents": 1_250}).to_string();
        self.http
            .post(&self.url)
            .header("x-api-key", "me")
            .header("content-type", "application/json")
            .header("idempotency-key", format!("\"{key}\""))
            .body(order)
    }

    /// Asks until there is an outcome, as a client should.
    async fn charge(&self, key: &str, card: &str) -> Response {
        loop {
            let response = self.request(key, card).send().await.unwrap();
            match response.status().as_u16() {
                409 => {
                    assert!(response.headers().contains_key("retry-after"));
                    sleep(Duration::from_millis(50)).await;
                }
                502 => {}
                _ => return response,
            }
        }
    }

    async fn charges(&self) -> Vec<Value> {
        let told = self.http.get(&self.url).send().await.unwrap();
        serde_json::from_slice(&told.bytes().await.unwrap()).unwrap()
    }
}

#[test]
fn a_card_is_charged_once_however_often_that_is_asked_for() {
    let mut example = Example::run("payments", &[("PAYMENTS_LISTEN", "127.0.0.1:0")]);
    let url = example.line(|line| {
        let behind = line.strip_prefix("payments are at ")?;
        Some(behind.split(';').next()?.to_owned())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let http = Client::builder().no_proxy().build().unwrap();
        let payments = std::sync::Arc::new(Payments { url, http });
        let asked = timeout(Duration::from_secs(30), ask(payments)).await;
        asked.unwrap();
    });
    signal("INT", example.child.id());
    let said = example.rest();
    assert!(said.contains("not_stored: 0"), "{said}");
}

async fn ask(payments: std::sync::Arc<Payments>) {
    // Thirty retries at once, each with its own connection.
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let payments = std::sync::Arc::clone(&payments);
        callers.spawn(async move {
            let response = payments.charge("order-17", "visa").await;
            let is_replayed = response.headers().contains_key("idempotency-replayed");
            (
                response.status().as_u16(),
                response.bytes().await.unwrap(),
                is_replayed,
            )
        });
    }
    let mut told = Vec::new();
    while let Some(one) = callers.join_next().await {
        told.push(one.unwrap());
    }
    assert!(
        told.iter()
            .all(|(status, body, _)| (*status, body) == (201, &told[0].1)),
        "{told:?}"
    );
    assert_eq!(
        told.iter().filter(|(.., is_replayed)| !is_replayed).count(),
        1
    );
    assert_eq!(payments.charges().await.len(), 1);
    // One that hangs up is charged all the same, and finds that out.
    let hung_up = payments.request("order-18", "visa").send();
    assert!(timeout(Duration::from_millis(100), hung_up).await.is_err());
    let told = payments.charge("order-18", "visa").await;
    assert_eq!(told.status(), 201);
    assert!(told.headers().contains_key("idempotency-replayed"));
    assert_eq!(payments.charges().await.len(), 2);
    // A failure of the network is tried again, an empty card is not.
    let told = payments.charge("order-19", "flaky").await;
    assert!(told.text().await.unwrap().contains("\"attempt\":2"));
    for is_replayed in [false, true] {
        let told = payments.charge("order-20", "no-money").await;
        assert_eq!(told.status(), 402);
        assert_eq!(
            told.headers().contains_key("idempotency-replayed"),
            is_replayed
        );
    }
    // Another order under a key, no key, nobody.
    let began = Instant::now();
    assert_eq!(payments.charge("order-17", "master").await.status(), 422);
    let order = payments.http.post(&payments.url).header("x-api-key", "me");
    assert_eq!(order.body("{}").send().await.unwrap().status(), 400);
    let order = payments
        .http
        .post(&payments.url)
        .header("idempotency-key", "\"order-17\"");
    assert_eq!(order.body("{}").send().await.unwrap().status(), 403);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(payments.charges().await.len(), 3);
}
