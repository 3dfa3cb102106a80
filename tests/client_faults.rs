//! The async client when connections break, servers are silent or refuse, and callers go away.
//!
//! What it does when all is well is in `client.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::TestServer;
use common::asynchronous::{client_of, run};
use onced::client::{
    Begin, BeginOptions, Client, ClientConfig, ClientError, CompleteOptions, Done, Ending, Failure,
    First, Held, Origin, RunOnce, RunOnceError, StoreError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const MINUTE: Option<Duration> = Some(Duration::from_mins(1));

/// Work that is done at once.
async fn done(_: Held) -> Result<Done, Failure<()>> {
    Ok(Done::default())
}

/// A server that answers as a test wants: given the number of the connection, from 0, and the request's
/// words; `None` is silence, and an answer without a line's end closes the connection.
struct Scripted {
    address: String,
    connections: Arc<AtomicUsize>,
    /// The first two words of each request, and when it came.
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Scripted {
    fn start(answer: impl Fn(usize, &[String]) -> Option<String> + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (count, log) = (Arc::clone(&connections), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (answer, log) = (answer.clone(), Arc::clone(&log));
                std::thread::spawn(move || converse(&stream.unwrap(), number, &answer, &log));
            }
        });
        Self {
            address,
            connections,
            asked,
        }
    }

    fn when(&self, word: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        let these = asked.iter().filter(|(words, _)| words.starts_with(word));
        these.map(|(_, at)| *at).collect()
    }
}

fn converse(
    stream: &TcpStream,
    number: usize,
    answer: &impl Fn(usize, &[String]) -> Option<String>,
    log: &Mutex<Vec<(String, Instant)>>,
) {
    let mut reader = BufReader::new(stream);
    while let Some(words) = request(&mut reader) {
        log.lock()
            .unwrap()
            .push((words[..words.len().min(2)].join(" "), Instant::now()));
        let Some(answer) = answer(number, &words) else {
            continue;
        };
        if (&*stream).write_all(answer.as_bytes()).is_err() || !answer.ends_with('\n') {
            return;
        }
    }
}

/// The words of a request.
fn request(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut number = |kind: char| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().strip_prefix(kind)?.parse::<usize>().ok()
    };
    let count = number('*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let len: usize = line.trim_end().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; len + 2];
        reader.read_exact(&mut word).ok()?;
        words.push(String::from_utf8_lossy(&word[..len]).into_owned());
    }
    Some(words)
}

/// What every server says first.
fn pong(words: &[String]) -> Option<String> {
    (words[0] == "PING").then(|| "+PONG\r\n".to_owned())
}

#[test]
fn a_server_that_falls_silent_is_connected_to_anew() {
    let server = Scripted::start(|number, words| match number {
        0 => pong(words),
        _ => pong(words).or_else(|| Some("+NEW\r\n".to_owned())),
    });
    run(async {
        let client = Client::with(ClientConfig {
            timeout: Duration::from_millis(200),
            ..ClientConfig::new(server.address.parse().unwrap())
        });
        let told = client.seen("a", None).await;
        let is_unknown = matches!(told, Err(ClientError::Timeout | ClientError::Lost(_)));
        assert!(is_unknown, "{told:?}");
        let began = Instant::now();
        while client.seen("b", None).await != Ok(First::New) {
            assert!(began.elapsed() < Duration::from_secs(5), "it was given up");
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn what_was_said_to_be_unreachable_is_not_executed_later() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    run(async {
        let client = Client::with(ClientConfig {
            timeout: Duration::from_millis(200),
            backoff_min: Duration::from_millis(300),
            backoff_max: Duration::from_millis(300),
            ..ClientConfig::new(free.parse().unwrap())
        });
        let callers: Vec<_> = (0..50)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.seen(format!("k{number}"), MINUTE).await })
            })
            .collect();
        for caller in callers {
            let told = caller.await.unwrap();
            assert!(
                matches!(told, Err(ClientError::Unreachable { .. })),
                "{told:?}"
            );
        }
        let _server = TestServer::with(|raw| raw.listen = Some(vec![free.clone()]));
        while client.seen("later", MINUTE).await.is_err() {}
        let keys: Vec<_> = (0..50).map(|number| format!("k{number}")).collect();
        let told = client.mseen(&keys, MINUTE).await.unwrap();
        assert!(told.iter().all(|told| *told == First::New), "{told:?}");
    });
}

#[test]
fn a_server_that_has_no_place_or_refuses_is_told_apart() {
    let server = Scripted::start(|number, words| match number {
        0 => Some("-ERR max number of clients reached\r\n-".to_owned()),
        1 => Some("-LOADING the log is being read\r\n".to_owned()),
        _ => pong(words).or_else(|| Some("+NEW\r\n".to_owned())),
    });
    run(async {
        let client = client_of(&server.address);
        assert_eq!(client.seen("a", None).await, Ok(First::New));
        assert_eq!(server.connections.load(Ordering::SeqCst), 3);
    });
    let server = TestServer::with(|raw| raw.create_namespaces = Some(false));
    run(async {
        let client = Client::with(ClientConfig {
            namespace: Some("nobody".to_owned()),
            ..ClientConfig::new(server.address.parse().unwrap())
        });
        let began = Instant::now();
        let told = client.seen("a", None).await;
        assert!(
            matches!(&told, Err(ClientError::Refused { code, .. }) if code == "NONS"),
            "{told:?}"
        );
        let told = client.run_once("a", &RunOnce::default(), done).await;
        assert!(matches!(told, Err(RunOnceError::Client(_))), "{told:?}");
        let told = client.wait("a", Duration::from_secs(5)).await;
        assert!(
            matches!(&told, Err(ClientError::Refused { code, .. }) if code == "NONS"),
            "{told:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(4));
    });
}

#[test]
fn a_record_that_is_gone_is_stored_as_it_was_begun() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce {
            fingerprint: Some("a1".to_owned()),
            ttl: Some(Duration::from_hours(48)),
            ..RunOnce::default()
        };
        let forgetful = |_| async {
            client.forget(&["k"]).await.unwrap();
            Ok::<_, Failure<()>>(Done::default())
        };
        client.run_once("k", &options, forgetful).await.unwrap();
        let rows = server.connect().ask_all("INSPECT k");
        assert!(rows.contains(&"fingerprint a1".to_owned()), "{rows:?}");
        let expires = rows
            .iter()
            .find_map(|row| row.strip_prefix("expires_in_ms "));
        assert!(
            expires.unwrap().parse::<u64>().unwrap() > 47 * 3_600_000,
            "{rows:?}"
        );
    });
}

#[test]
fn an_outcome_that_was_not_stored_is_not_said_to_be() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce::default();
        let no = || Done {
            code: 402,
            body: "no".into(),
        };
        // Failed for good, but the record is gone.
        let told = client
            .run_once("k", &options, |_| async {
                client.forget(&["k"]).await.unwrap();
                Err::<Done, _>(Failure::<()>::Final(no()))
            })
            .await;
        let is_gone = |told: &Result<_, RunOnceError<()>>| {
            matches!(
                told,
                Err(RunOnceError::NotStored {
                    source: StoreError::Gone,
                    ..
                })
            )
        };
        assert!(is_gone(&told), "{told:?}");
        // Another said that the key was seen.
        let told = client
            .run_once("m", &options, |_| async {
                client.forget(&["m"]).await.unwrap();
                client.seen("m", None).await.unwrap();
                Ok(no())
            })
            .await;
        assert!(is_gone(&told), "{told:?}");
        // Too large: with the token, something shorter can be stored.
        let told = client
            .run_once("l", &options, |_| async {
                Ok::<_, Failure<()>>(Done {
                    code: 200,
                    body: vec![b'x'; 300 << 10].into(),
                })
            })
            .await;
        let Err(RunOnceError::NotStored {
            held,
            outcome,
            source,
        }) = told
        else {
            panic!("{told:?}");
        };
        assert!(source.to_string().contains("TOOBIG"), "{source}");
        assert_eq!(outcome.body.len(), 300 << 10);
        let ending = client
            .complete("l", held.token, &no(), &CompleteOptions::default())
            .await;
        assert_eq!(ending, Ok(Ending::Ok));
    });
}

#[test]
fn a_renewal_without_an_answer_is_not_the_last() {
    let server = Scripted::start(|_, words| {
        pong(words).or_else(|| match &words[0][..] {
            "ONCE.BEGIN" => Some("*4\r\n+RUN\r\n:7\r\n:1200\r\n:1\r\n".to_owned()),
            "ONCE.RENEW" => None,
            _ => Some("+OK\r\n".to_owned()),
        })
    });
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce {
            lease: Duration::from_millis(1_200),
            patience: Duration::from_millis(100),
            ..RunOnce::default()
        };
        let began = Instant::now();
        let work = |_| async {
            sleep(Duration::from_millis(1_150)).await;
            Ok::<_, Failure<()>>(Done::default())
        };
        let _unanswered = client.run_once("k", &options, work).await;
        let renewals = server.when("ONCE.RENEW");
        let in_time = renewals
            .iter()
            .filter(|at| **at - began < Duration::from_millis(1_200));
        assert!(in_time.count() >= 3, "{renewals:?}");
    });
}

#[test]
fn work_does_not_begin_under_a_lease_that_may_be_over() {
    let server = Scripted::start(|_, words| {
        pong(words).or_else(|| match &words[0][..] {
            "ONCE.BEGIN" => {
                std::thread::sleep(Duration::from_millis(400));
                Some("*4\r\n+RUN\r\n:7\r\n:300\r\n:1\r\n".to_owned())
            }
            "ONCE.RENEW" => Some("*2\r\n+OK\r\n:300\r\n".to_owned()),
            _ => Some("+OK\r\n".to_owned()),
        })
    });
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce {
            lease: Duration::from_millis(300),
            ..RunOnce::default()
        };
        let asked = Arc::clone(&server.asked);
        let work = |_| async move {
            let renewals = asked
                .lock()
                .unwrap()
                .iter()
                .filter(|(words, _)| words == "ONCE.RENEW k")
                .count();
            Ok::<_, Failure<()>>(Done {
                code: renewals as u32,
                ..Done::default()
            })
        };
        let ran = client.run_once("k", &options, work).await.unwrap();
        assert_eq!(
            ran.outcome.code, 1,
            "the lease was made sure of before the work began"
        );
    });
}

/// A way to a server.
struct Way {
    address: String,
    /// Whether answers are lost on it.
    is_mute: Arc<AtomicBool>,
    /// Cuts the connections that there are.
    cut: Arc<Notify>,
    /// What takes new ones.
    accepting: JoinHandle<()>,
}

impl Way {
    async fn to(target: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (is_mute, cut) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default());
        let (target, mute, cuts) = (target.to_owned(), Arc::clone(&is_mute), Arc::clone(&cut));
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = tokio::net::TcpStream::connect(&target).await.unwrap();
                let (mute, cuts) = (Arc::clone(&mute), Arc::clone(&cuts));
                tokio::spawn(async move {
                    let (mut from_near, mut to_near) = near.into_split();
                    let (mut from_far, mut to_far) = far.into_split();
                    let answers = async {
                        let mut bytes = [0; 1024];
                        while let Ok(count @ 1..) = from_far.read(&mut bytes).await {
                            if !mute.load(Ordering::SeqCst) {
                                to_near.write_all(&bytes[..count]).await.unwrap();
                            }
                        }
                    };
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
                        () = answers => {}
                        () = cuts.notified() => {}
                    }
                });
            }
        });
        Self {
            address,
            is_mute,
            cut,
            accepting,
        }
    }
}

#[test]
fn patience_begins_when_something_fails() {
    let server = TestServer::start();
    run(async {
        let holder = client_of(&server.address);
        let Ok(Begin::Run(held)) = holder.begin("k", &BeginOptions::default()).await else {
            panic!("the key is new");
        };
        let way = Way::to(&server.address).await;
        let options = RunOnce {
            patience: Duration::from_secs(1),
            wait: Duration::from_secs(20),
            ..RunOnce::default()
        };
        let client = client_of(&way.address);
        let (ran, ()) = tokio::join!(client.run_once("k", &options, done), async {
            sleep(Duration::from_millis(1_300)).await; // longer than its patience
            way.cut.notify_waiters();
            sleep(Duration::from_millis(300)).await;
            let said = Done::default();
            let ending = holder
                .complete("k", held.token, &said, &CompleteOptions::default())
                .await;
            assert_eq!(ending, Ok(Ending::Ok));
        });
        assert_eq!(ran.unwrap().origin, Origin::Replayed);
    });
}

/// What is refused for another reason than the waiting ends the waiting.
#[test]
fn waiting_ends_though_the_server_refuses_what_it_did_not_before() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let Ok(Begin::Run(_)) = client.begin("k", &BeginOptions::default()).await else {
            panic!("the key is new");
        };
        let options = RunOnce {
            ttl: Some(Duration::from_hours(24)),
            wait: Duration::from_secs(2),
            ..RunOnce::default()
        };
        let began = Instant::now();
        let (ran, ()) = tokio::join!(client.run_once("k", &options, done), async {
            sleep(Duration::from_millis(300)).await;
            let mut raw = server.connect();
            assert_eq!(raw.ask("NS SET default TTL 1m MAXTTL 1h"), "OK");
        });
        assert!(matches!(ran, Err(RunOnceError::Busy { .. })), "{ran:?}");
        assert!(
            began.elapsed() < Duration::from_secs(6),
            "{:?}",
            began.elapsed()
        );
    });
}

/// The server goes away for good while a caller waits: it hears that another was at work, in its time.
#[test]
fn waiting_ends_in_its_time_though_the_server_is_gone() {
    let server = TestServer::start();
    run(async {
        let holder = client_of(&server.address);
        let Ok(Begin::Run(_)) = holder.begin("k", &BeginOptions::default()).await else {
            panic!("the key is new");
        };
        let way = Way::to(&server.address).await;
        let options = RunOnce {
            patience: Duration::from_millis(500),
            wait: Duration::from_secs(20),
            ..RunOnce::default()
        };
        let client = client_of(&way.address);
        let began = Instant::now();
        let (ran, ()) = tokio::join!(client.run_once("k", &options, done), async {
            sleep(Duration::from_millis(500)).await;
            way.accepting.abort();
            way.cut.notify_waiters();
        });
        assert!(matches!(ran, Err(RunOnceError::Busy { .. })), "{ran:?}");
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
    });
}

/// Callers that gave up before anything was sent for them leave nothing to do.
#[test]
fn who_gives_up_before_it_was_asked_for_costs_the_server_nothing() {
    let server = Scripted::start(|_, words| {
        pong(words).or_else(|| {
            std::thread::sleep(Duration::from_millis(300));
            Some("*2\r\n+BUSY\r\n:1000\r\n".to_owned())
        })
    });
    run(async {
        let client = Client::with(ClientConfig {
            in_flight_max: 2,
            ..ClientConfig::new(server.address.parse().unwrap())
        });
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..100 {
            let client = client.clone();
            callers.spawn(async move {
                let options = RunOnce::default();
                let work = client.run_once(format!("k{number}"), &options, done);
                let _given_up = timeout(Duration::from_millis(200), work).await;
            });
        }
        while callers.join_next().await.is_some() {}
        sleep(Duration::from_secs(2)).await;
        let begun = server.when("ONCE.BEGIN").len();
        let looked = server.when("ONCE.PEEK").len();
        assert!(begun <= 2 && looked <= 2, "{begun} {looked}");
    });
}

/// A claim that was granted, and whose answer was lost, is given back once there is a connection again.
#[test]
fn a_claim_that_was_lost_is_given_back_later() {
    let server = TestServer::start();
    run(async {
        let way = Way::to(&server.address).await;
        let client = client_of(&way.address);
        client.ping().await.unwrap();
        let options = RunOnce {
            patience: Duration::from_millis(200),
            ..RunOnce::default()
        };
        way.is_mute.store(true, Ordering::SeqCst);
        let told = client.run_once("k", &options, done).await;
        assert!(matches!(told, Err(RunOnceError::Client(_))), "{told:?}");
        let mut raw = server.connect();
        assert_eq!(raw.ask("PEEK k"), "B");
        way.is_mute.store(false, Ordering::SeqCst);
        way.cut.notify_waiters();
        let began = Instant::now();
        while raw.ask("PEEK k") != "R" {
            assert!(began.elapsed() < Duration::from_secs(5));
            sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn work_that_nobody_else_wants_takes_no_connection_of_its_own() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let callers: Vec<_> = (0..300)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    client
                        .run_once(format!("k{number}"), &RunOnce::default(), done)
                        .await
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap().unwrap().origin, Origin::Fresh);
        }
        // Its own, and the two that ask here.
        assert!(server.gauge("connections_total") <= 3);
    });
}

#[test]
fn a_server_that_lets_nobody_wait_so_long_is_waited_for_all_the_same() {
    let server = TestServer::with(|raw| raw.max_wait = Some("300ms".to_owned()));
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce {
            wait: Duration::from_secs(20),
            ..RunOnce::default()
        };
        let slow = |_| async {
            sleep(Duration::from_millis(1_500)).await;
            Ok::<_, Failure<()>>(Done::default())
        };
        let (first, second) = tokio::join!(client.run_once("k", &options, slow), async {
            sleep(Duration::from_millis(100)).await;
            client.run_once("k", &options, done).await
        });
        assert_eq!(first.unwrap().origin, Origin::Fresh);
        assert_eq!(second.unwrap().origin, Origin::Replayed);
    });
}

/// Wherever a caller goes away, the key is free soon, not when its lease has lapsed.
#[test]
fn callers_that_go_away_leave_no_key_behind() {
    let server = TestServer::start();
    run(async {
        let client = Client::with(ClientConfig {
            in_flight_max: 4,
            ..ClientConfig::new(server.address.parse().unwrap())
        });
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..200_u64 {
            let client = client.clone();
            callers.spawn(async move {
                let options = RunOnce::default();
                let never = |_| std::future::pending::<Result<Done, Failure<()>>>();
                let work = client.run_once(format!("k{number}"), &options, never);
                let _gone = timeout(Duration::from_micros(number * 50), work).await;
            });
        }
        while callers.join_next().await.is_some() {}
        let mut raw = server.connect();
        let began = Instant::now();
        let keys: Vec<_> = (0..200).map(|number| format!("k{number}")).collect();
        let ask = format!("PEEK {}", keys.join(" "));
        loop {
            client.ping().await.unwrap();
            let letters = raw.ask(&ask);
            if !letters.contains('B') {
                assert!(letters.contains('R'), "some were begun: {letters}");
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{letters}");
        }
    });
}

#[test]
fn work_that_is_done_is_stored_though_its_caller_goes_away() {
    let server = TestServer::start();
    run(async {
        let way = Way::to(&server.address).await;
        let client = client_of(&way.address);
        let options = RunOnce::default();
        let mut work = Box::pin(client.run_once("k", &options, |_| async {
            way.cut.notify_waiters(); // so that what comes of it has to wait for the next connection
            Ok::<_, Failure<()>>(Done {
                code: 201,
                ..Done::default()
            })
        }));
        let gone = timeout(Duration::from_millis(20), &mut work).await;
        if gone.is_err() {
            drop(work);
        }
        let mut raw = server.connect();
        let began = Instant::now();
        while raw.ask("PEEK k") != "C" {
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{}",
                raw.ask("PEEK k")
            );
            sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn durations_without_end_and_runtimes_that_ended_are_no_surprise() {
    let server = TestServer::start();
    let client = run(async {
        let client = client_of(&server.address);
        let options = RunOnce {
            wait: Duration::MAX,
            patience: Duration::MAX,
            ..RunOnce::default()
        };
        let ran = client.run_once("k", &options, done).await.unwrap();
        assert_eq!(ran.origin, Origin::Fresh);
        let told = client.wait("k", Duration::MAX).await;
        assert!(matches!(told, Err(ClientError::Refused { code, .. }) if code == "RANGE"));
        client
    });
    run(async {
        assert_eq!(client.seen("k", None).await, Err(ClientError::Ended));
        let began = Instant::now();
        let told = client.run_once("k", &RunOnce::default(), done).await;
        assert!(
            matches!(told, Err(RunOnceError::Client(ClientError::Ended))),
            "{told:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(3));
    });
}
