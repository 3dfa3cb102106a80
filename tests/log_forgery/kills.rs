//! The real binary, killed while attackers store; and what `--recover`, `repair` and `import` make of it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::routing::post;
use onced::http::{Idempotency, Scope};
use onced::time::Millis;
use tower::ServiceExt;

use crate::attack::{self, CLAIM, FORGED, VICTIM};
use crate::common::asynchronous::{client_of, run};
use crate::common::process::{Dice, Process, Scratch, copy, segments, signal};
use crate::common::token;
use crate::from_environment;

/// Kills unless `ONCED_FORGERY_KILLS` says otherwise.
const KILLS: u64 = 2;
/// Clients that store values at the same time.
const WRITERS: usize = 6;
const BODY: &str = "what was done";

fn deadline() -> Millis {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Millis(unix.unwrap().as_millis() as u64 + 3_600_000)
}

fn words(words: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// What is there before the attack, durably.
fn prepare(server: &Process) {
    let mut client = server.connect();
    assert_eq!(client.ask(&format!("SEEN {VICTIM} 1h")), "NEW");
    let token = token(&client.ask(&format!("BEGIN {CLAIM} TTL 1h")));
    let done = client.ask(&format!(
        "COMPLETE {CLAIM} {token} CODE 200 BODY \"{BODY}\""
    ));
    assert_eq!(done, "OK");
    assert_eq!(client.ask("SYNC"), "OK");
}

/// Frames as bytes that clients store.
fn forged(dice: &mut Dice, bytes: usize) -> Vec<u8> {
    attack::frames(bytes, deadline(), 1, dice.below(1 << 20), dice.next())
}

/// Stores frames as bodies, each of which is acknowledged.
fn store_bodies(server: &Process, dice: &mut Dice) {
    answer_over_http(server, &forged(dice, 40 << 10));
    let mut client = server.connect();
    for n in 0..4 {
        let key = format!("body-{n}");
        let begun = client.call(&["ONCE.BEGIN", &key, "TTL", "1h"]);
        let token = begun.split([':', ',']).nth(2).unwrap();
        let body = forged(dice, 200 << 10);
        let complete: [&[u8]; 5] = [
            b"ONCE.COMPLETE",
            key.as_bytes(),
            token.as_bytes(),
            b"BODY",
            &body,
        ];
        client.send(words(&complete));
        assert_eq!(client.resp(), "+OK");
    }
}

/// Requests that store frames as values and keys.
fn requests(dice: &mut Dice) -> Vec<u8> {
    let mut requests = Vec::new();
    for n in 0..16 {
        let key = format!("value-{}", dice.below(100));
        let value = forged(dice, 256 << 10);
        let set: [&[u8]; 5] = [b"SET", key.as_bytes(), &value, b"PX", b"3600000"];
        requests.extend(words(&set));
        let long_key = forged(dice, 8_000 - n);
        let seen: [&[u8]; 3] = [b"ONCE.SEEN", &long_key, b"1h"];
        requests.extend(words(&seen));
    }
    requests
}

/// A response that the layer stores.
fn answer_over_http(server: &Process, answer: &[u8]) {
    let answer = Bytes::copy_from_slice(answer);
    let address = server.address.clone();
    run(async move {
        let layer = Idempotency::new(client_of(&address), Scope::shared());
        let app = Router::new()
            .route("/", post(|| async move { answer }))
            .layer(layer);
        let request = Request::post("/").header("idempotency-key", "\"a\"");
        let told = app.oneshot(request.body(Body::empty()).unwrap()).await;
        assert_eq!(told.unwrap().status(), 200);
    });
}

/// Kills a server while its clients store.
fn kill_while_storing(path: &Path, dice: &mut Dice) {
    let server = Process::start(path, &["--fsync", "everysec"]);
    prepare(&server);
    store_bodies(&server, dice);
    let requests = requests(dice);
    let (id, pause) = (server.id(), Duration::from_millis(20 + dice.below(200)));
    let clients: Vec<_> = (0..WRITERS).map(|_| server.connect()).collect();
    let killing = std::thread::spawn(move || {
        std::thread::sleep(pause);
        signal("KILL", id);
    });
    // Nobody waits for the answers, and several ask, so that much is written at a time.
    std::thread::scope(|scope| {
        for mut client in clients {
            let requests = &requests;
            scope.spawn(move || while client.try_send(requests) {});
        }
    });
    killing.join().unwrap();
    server.kill();
}

/// What was there before is there, and nothing that was forged.
fn check(server: &Process) {
    let mut client = server.connect();
    assert_eq!(client.ask(&format!("PEEK {VICTIM} {FORGED}")), "DN");
    let told = client.ask(&format!("BEGIN {CLAIM} TTL 1h"));
    assert_eq!((&told[..], client.line()), ("DONE 200 13", BODY.to_owned()));
    let spaces = client.ask_all("NS LIST");
    assert!(
        !spaces.iter().any(|row| row.contains("forged")),
        "{spaces:?}"
    );
}

fn onced(arguments: &[&str]) -> Output {
    let binary = std::env::var_os("ONCED_BINARY");
    Command::new(binary.unwrap_or(env!("CARGO_BIN_EXE_onced").into()))
        .args(arguments)
        .output()
        .unwrap()
}

/// Flips a bit within what attackers stored, in some segment.
fn flip(path: &Path, dice: &mut Dice) {
    let files = segments(path);
    let file = dice.pick(&files);
    let mut bytes = fs::read(file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    // Behind what was there before the attack.
    let from = 2_000.min(end / 2);
    bytes[(from + dice.below(end - from)) as usize] ^= 1 << dice.below(8);
    fs::write(file, bytes).unwrap();
}

/// Cuts the newest segment off within what was written last; what was set aside behind it stays.
fn tear(path: &Path, dice: &mut Dice) {
    let newest = segments(path).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let whole = crate::frames::frames(&bytes);
    // What was there before the attack is in the first of them.
    let last = &whole[8.min(whole.len() - 1)..].last().unwrap().range;
    let at = last.start + 1 + dice.below(last.len() as u64 - 1) as usize;
    bytes[at..].fill(0);
    // Zeros may be the frame's own end.
    bytes[at - 1] |= 1;
    fs::write(newest, bytes).unwrap();
}

#[test]
fn what_attackers_store_is_no_history_after_a_kill() {
    let kills = from_environment("ONCED_FORGERY_KILLS").unwrap_or(KILLS);
    let seed = from_environment("ONCED_FORGERY_SEED").unwrap_or(1);
    let mut torn = 0;
    for round in 0..kills {
        let mut dice = Dice::new(seed * 1_000 + round);
        let scratch = Scratch::new("forgery");
        let (path, damaged) = (scratch.join("data"), scratch.join("damaged"));
        kill_while_storing(&path, &mut dice);
        copy(&path, &damaged);
        let cut = scratch.join("cut");
        copy(&path, &cut);
        // As it is: a torn tail is cut off, whatever it holds.
        let server = Process::start(&path, &[]);
        check(&server);
        torn += u64::from(server.kill().contains("cut off what was being written"));
        // Cut where a kill may cut it, too.
        tear(&cut, &mut dice);
        let server = Process::start(&cut, &[]);
        check(&server);
        let said = server.kill();
        assert!(said.contains("cut off what was being written"), "{said}");
        // With a bit that flipped in what is not the tail.
        flip(&damaged, &mut dice);
        let repaired = scratch.join("repaired");
        let (from, to) = (damaged.to_str().unwrap(), repaired.to_str().unwrap());
        let output = onced(&["log", "repair", from, "--to", to]);
        assert!(output.status.success(), "{output:?}");
        let server = Process::start(&repaired, &[]);
        check(&server);
        server.stop();
        let server = Process::start(&damaged, &["--recover"]);
        check(&server);
        server.stop();
        if round == 0 {
            import(&repaired, &scratch);
        }
    }
    println!(
        "{kills} kills, {} torn tails, {kills} of them cut by hand: 0 refused starts, 0 forged records",
        torn + kills
    );
}

/// Values full of frames go into another server as the values that they are.
fn import(from: &Path, scratch: &Scratch) {
    let dump = onced(&["log", "dump", "--live", from.to_str().unwrap()]);
    let lines = String::from_utf8(dump.stdout).unwrap();
    // Records are not carried over.
    let keys: Vec<_> = lines
        .lines()
        .filter(|line| !line.contains("\"record\":"))
        .collect();
    let file = scratch.join("dump.json");
    fs::write(&file, keys.join("\n")).unwrap();
    let data = scratch.join("imported");
    let server = Process::start(&data, &[]);
    let output = onced(&[
        "log",
        "import",
        file.to_str().unwrap(),
        "--server",
        &server.address,
    ]);
    assert!(output.status.success(), "{output:?}");
    server.kill();
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    assert_eq!(client.ask(&format!("PEEK {VICTIM} {FORGED}")), "DN");
}
