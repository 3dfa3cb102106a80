//! The async client against a real server: typed replies, pipelining, held calls, reconnection, and
//! work that runs once.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::TestServer;
use common::asynchronous::{client_of, run};
use common::process::{Dice, Process, Scratch};
use onced::client::{
    Begin, BeginOptions, Claimed, Client, ClientConfig, ClientError, CompleteOptions, Done, Ending,
    Failure, First, Heard, Held, Origin, Ran, RunOnce, RunOnceError,
};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

const MINUTE: Option<Duration> = Some(Duration::from_mins(1));

/// An outcome without a body.
fn no(code: u32) -> Done {
    Done {
        code,
        body: Bytes::new(),
    }
}

fn held(begun: &Begin) -> Held {
    match begun {
        Begin::Run(held) => *held,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_call_has_a_typed_reply() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        assert_eq!(client.seen("a", MINUTE).await.unwrap(), First::New);
        assert_eq!(client.seen(b"a", None).await.unwrap(), First::Dup);
        let told = client.mseen(&["a", "b", "b"], None).await.unwrap();
        assert_eq!(told, [First::Dup, First::New, First::Dup]);
        assert_eq!(client.forget(&["a", "b", "c"]).await.unwrap(), 2);
        let options = BeginOptions {
            lease: Some(Duration::from_micros(9_999_500)),
            ttl: MINUTE,
            fingerprint: Some("a1".to_owned()),
            owner: Some(b"me \0\r\n".to_vec()),
            wait: None,
        };
        let first = held(&client.begin("k", &options).await.unwrap());
        assert_eq!((first.lease, first.attempt), (Duration::from_secs(10), 1));
        let again = held(&client.begin("k", &options).await.unwrap());
        assert_eq!((again.token, again.is_unsure), (first.token, false));
        let other = BeginOptions::default();
        let busy = client.begin("k", &other).await.unwrap();
        assert!(matches!(busy, Begin::Busy(left) if left <= Duration::from_millis(10_001)));
        let wrong = BeginOptions {
            fingerprint: Some("b2".to_owned()),
            ..BeginOptions::default()
        };
        assert_eq!(client.begin("k", &wrong).await.unwrap(), Begin::Mismatch);
        let renewed = client.renew("k", first.token, MINUTE).await.unwrap();
        assert_eq!(renewed, Ok(Duration::from_mins(1)));
        let stale = client.renew("k", 1, None).await.unwrap();
        assert_eq!(stale, Err(Ending::Stale));
        let told = client.wait("k", Duration::from_millis(50)).await.unwrap();
        assert_eq!(told, Heard::TimedOut);
        assert_eq!(
            client.fail_retry("k", first.token).await.unwrap(),
            Ending::Ok
        );
        let told = client.wait("k", Duration::from_secs(5)).await.unwrap();
        assert_eq!(told, Heard::Free);
        let second = held(&client.begin("k", &other).await.unwrap());
        assert!(second.token > first.token && second.attempt == 2);
        let said = Done {
            code: 7,
            body: "a\r\nb".into(),
        };
        let plain = CompleteOptions::default();
        let told = client.complete("k", second.token, &said, &plain).await;
        let told = told.unwrap();
        assert_eq!(told, Ending::Ok);
        let Heard::Settled(outcome) = client.wait("k", Duration::ZERO).await.unwrap() else {
            panic!("it is settled");
        };
        assert_eq!((outcome.code, &outcome.body[..]), (7, &b"a\r\nb"[..]));
        assert_eq!(client.fail_retry("none", 1).await.unwrap(), Ending::Gone);
        let third = held(&client.begin("j", &other).await.unwrap());
        let told = client
            .fail_final("j", third.token, &no(9), MINUTE)
            .await
            .unwrap();
        assert_eq!(told, Ending::Ok);
        let begun = client.begin("j", &other).await.unwrap();
        assert!(
            matches!(begun, Begin::Settled(outcome) if outcome.is_failure && outcome.code == 9)
        );
        client.seen("m", None).await.unwrap();
        let claimed = client
            .mbegin(&["x", "x", "k", "j", "m"], (None, None))
            .await
            .unwrap();
        let [Claimed::Run(token), rest @ ..] = &claimed[..] else {
            panic!("{claimed:?}");
        };
        assert_eq!(
            rest,
            [
                Claimed::Dup,
                Claimed::Completed,
                Claimed::Failed,
                Claimed::Dup
            ]
        );
        let ended = client
            .mcomplete(&[("x", *token), ("k", 1), ("none", 1)])
            .await
            .unwrap();
        assert_eq!(ended, [Ending::Ok, Ending::Stale, Ending::Gone]);
        assert_eq!(
            client.mfail(&[("x", *token)]).await.unwrap(),
            [Ending::Stale]
        );
        let refused = client.seen("a", Some(Duration::from_hours(400 * 24))).await;
        assert!(matches!(refused, Err(ClientError::Refused { code, .. }) if code == "RANGE"));
    });
}

#[test]
fn calls_share_a_connection_and_held_ones_have_their_own() {
    let server = TestServer::start();
    run(async {
        let config = ClientConfig {
            namespace: Some("events".to_owned()),
            ..ClientConfig::new(server.address.parse().unwrap())
        };
        let client = Client::with(config);
        let options = BeginOptions::default();
        let holder = held(&client.begin("k", &options).await.unwrap());
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.wait("k", Duration::from_secs(20)).await })
            })
            .collect();
        while server.gauge("waiters") < 20 {
            sleep(Duration::from_millis(2)).await;
        }
        let calls: Vec<_> = (0..5_000)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(
                    async move { client.seen(format!("event-{}", n % 2_500), MINUTE).await },
                )
            })
            .collect();
        let mut new = 0;
        for call in calls {
            new += usize::from(call.await.unwrap().unwrap() == First::New);
        }
        assert_eq!(new, 2_500);
        assert_eq!(
            client
                .complete("k", holder.token, &no(1), &CompleteOptions::default())
                .await
                .unwrap(),
            Ending::Ok
        );
        for heard in waiting {
            assert!(matches!(heard.await.unwrap().unwrap(), Heard::Settled(_)));
        }
        // The shared one, those of held calls that are kept for the next, and the one that asks.
        while server.gauge("connections") > 1 + 8 + 1 {
            sleep(Duration::from_millis(2)).await;
        }
        assert!(
            server
                .connect()
                .ask_all("NS LIST")
                .contains(&"events keys=2501".to_owned())
        );
        let again = client.wait("k", Duration::from_secs(1)).await.unwrap();
        assert!(matches!(again, Heard::Settled(_)));
    });
}

#[test]
fn only_so_many_calls_are_held_and_further_ones_wait_for_a_place() {
    let server = TestServer::start();
    run(async {
        let client = Client::with(ClientConfig {
            held_max: 2,
            ..ClientConfig::new(server.address.parse().unwrap())
        });
        let holder = held(&client.begin("k", &BeginOptions::default()).await.unwrap());
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let client = client.clone();
            waiting.spawn(async move { client.wait("k", Duration::from_secs(20)).await });
        }
        while server.gauge("waiters") < 2 {
            sleep(Duration::from_millis(2)).await;
        }
        sleep(Duration::from_millis(100)).await;
        assert_eq!(server.gauge("waiters"), 2);
        // Whoever wants the work asks now and then instead.
        let options = RunOnce {
            wait: Duration::from_secs(20),
            ..RunOnce::default()
        };
        let done = |_| async { Ok::<_, Failure<()>>(Done::default()) };
        let (ran, ()) = tokio::join!(client.run_once("k", &options, done), async {
            sleep(Duration::from_millis(100)).await;
            let plain = CompleteOptions::default();
            let told = client.complete("k", holder.token, &no(7), &plain).await;
            assert_eq!(told, Ok(Ending::Ok));
        });
        assert_eq!(ran.unwrap().outcome.code, 7);
        while let Some(heard) = waiting.join_next().await {
            let heard = heard.unwrap().unwrap();
            assert!(matches!(heard, Heard::Settled(outcome) if outcome.code == 7));
        }
    });
}

#[test]
fn a_server_that_is_not_there_is_waited_for_but_not_for_ever() {
    run(async {
        let config = ClientConfig {
            timeout: Duration::from_millis(300),
            backoff_max: Duration::from_millis(50),
            ..ClientConfig::new("127.0.0.1:1".parse().unwrap())
        };
        let client = Client::with(config);
        let began = Instant::now();
        let told = client.seen("a", None).await;
        assert!(
            matches!(told, Err(ClientError::Unreachable { .. })),
            "{told:?}"
        );
        assert!(began.elapsed() >= Duration::from_millis(300));
        let told = client.wait("a", Duration::from_secs(1)).await;
        assert!(
            matches!(told, Err(ClientError::Unreachable { .. })),
            "{told:?}"
        );
    });
}

/// What is not onced is said to be none, and takes no memory.
#[test]
fn something_else_on_the_port_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::Write;
        for stream in listener.incoming().take(2) {
            let _the_client_may_be_gone = stream.unwrap().write_all(b"HTTP/1.1 400 Bad\r\n\r\n");
        }
    });
    run(async {
        let told = client_of(&address).seen("a", None).await;
        assert!(
            matches!(told, Err(ClientError::Protocol(_) | ClientError::Lost(_))),
            "{told:?}"
        );
    });
}

#[test]
fn a_client_finds_a_server_again_that_was_restarted() {
    let directory = Scratch::new("client");
    let data = directory.join("data");
    let socket = format!("unix:{}", directory.join("onced.sock").display());
    let start = || Process::start(&data, &["--listen", &socket]);
    run(async {
        let server = start();
        let client = client_of(&socket);
        assert_eq!(client.seen("a", MINUTE).await.unwrap(), First::New);
        server.kill();
        let later = {
            let client = client.clone();
            tokio::spawn(async move {
                let mut lost = 0;
                loop {
                    match client.seen("b", MINUTE).await {
                        Ok(first) => return (first, lost),
                        Err(ClientError::Lost(_)) => lost += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        };
        sleep(Duration::from_millis(100)).await;
        let _server = start();
        let (first, lost) = later.await.unwrap();
        assert!(first == First::New && lost <= 1, "{first:?} {lost}");
        assert_eq!(client.seen("a", MINUTE).await.unwrap(), First::Dup);
    });
}

#[test]
fn work_runs_once_and_everyone_gets_what_came_of_it() {
    let server = TestServer::start();
    run(async {
        let ran = std::rc::Rc::new(Cell::new(0));
        let callers = (0..50).map(|_| {
            let (client, ran) = (client_of(&server.address), std::rc::Rc::clone(&ran));
            async move {
                let work = |held: Held| async move {
                    ran.set(ran.get() + 1);
                    sleep(Duration::from_millis(100)).await;
                    let body = held.token.to_string().into();
                    Ok::<_, Failure<()>>(Done { code: 201, body })
                };
                client
                    .run_once("charge-17", &RunOnce::default(), work)
                    .await
                    .unwrap()
            }
        });
        let local = tokio::task::LocalSet::new();
        let callers: Vec<_> = callers.map(|caller| local.spawn_local(caller)).collect();
        let mut told = Vec::new();
        local
            .run_until(async {
                for caller in callers {
                    told.push(caller.await.unwrap());
                }
            })
            .await;
        assert_eq!(ran.get(), 1);
        let fresh = told
            .iter()
            .filter(|ran| ran.origin == Origin::Fresh)
            .count();
        assert_eq!(fresh, 1);
        assert!(told.iter().all(|ran| ran.outcome == told[0].outcome));
        assert_eq!(told[0].outcome.code, 201);
    });
}

#[test]
fn work_that_fails_is_for_others_or_is_the_answer() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce::default();
        let failed = client
            .run_once("a", &options, |_| async { Err(Failure::Retry("no")) })
            .await;
        assert!(
            matches!(failed, Err(RunOnceError::Work("no"))),
            "{failed:?}"
        );
        let ran = client
            .run_once("a", &options, |held| async move {
                assert_eq!(held.attempt, 2);
                let done = Done {
                    code: 402,
                    body: "no money".into(),
                };
                Err::<Done, _>(Failure::<()>::Final(done))
            })
            .await
            .unwrap();
        assert!(ran.outcome.is_failure && ran.origin == Origin::Fresh);
        let never = |_| async { panic!("it failed for good") };
        let again = client
            .run_once::<(), _>("a", &options, never)
            .await
            .unwrap();
        assert_eq!(
            (again.outcome, again.origin),
            (ran.outcome, Origin::Replayed)
        );
        let other = RunOnce {
            fingerprint: Some("a1".to_owned()),
            ..RunOnce::default()
        };
        let done = |_| async { Ok::<_, Failure<()>>(Done::default()) };
        client.run_once("b", &other, done).await.unwrap();
        let wrong = RunOnce {
            fingerprint: Some("b2".to_owned()),
            ..RunOnce::default()
        };
        let told = client.run_once("b", &wrong, done).await;
        assert!(matches!(told, Err(RunOnceError::Mismatch)), "{told:?}");
    });
}

#[test]
fn a_lease_is_renewed_while_the_work_runs_and_its_loss_stops_it() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce {
            lease: Duration::from_millis(150),
            wait: Duration::from_millis(100),
            ..RunOnce::default()
        };
        let long = |_| async {
            sleep(Duration::from_millis(600)).await;
            Ok::<_, Failure<()>>(Done::default())
        };
        let other = client_of(&server.address);
        let (ran, busy) = tokio::join!(client.run_once("k", &options, long), async {
            sleep(Duration::from_millis(350)).await;
            other.run_once("k", &options, long).await
        });
        assert_eq!(ran.unwrap().origin, Origin::Fresh);
        assert!(matches!(busy, Err(RunOnceError::Busy { .. })), "{busy:?}");
        // Forgotten and begun by another: the first one's token is of no use any more.
        let stopped = Cell::new(true);
        let (lost, ()) = tokio::join!(
            client.run_once("j", &options, |_| async {
                sleep(Duration::from_secs(10)).await;
                stopped.set(false);
                Ok::<_, Failure<()>>(Done::default())
            }),
            async {
                sleep(Duration::from_millis(50)).await;
                other.forget(&["j"]).await.unwrap();
                held(&other.begin("j", &BeginOptions::default()).await.unwrap());
            }
        );
        assert!(
            matches!(lost, Err(RunOnceError::LeaseLost { outcome: None, .. })),
            "{lost:?}"
        );
        assert!(stopped.get());
    });
}

/// The only thread of a runtime is blocked for longer than a lease, by `blocks`, which is told when to go on; the
/// server's other clients are told that the work is under way, all the time.
fn while_a_thread_is_blocked(
    blocks: impl AsyncFnOnce(Client, RunOnce, Box<dyn FnOnce()>) -> Result<Ran, RunOnceError<()>>,
) {
    const LEASE: Duration = Duration::from_secs(3);
    let server = TestServer::start();
    let mut raw = server.connect();
    let (starts, started) = std::sync::mpsc::channel();
    let (ends, ended) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        started.recv().unwrap();
        let began = Instant::now();
        while began.elapsed() < LEASE * 2 {
            let told = raw.ask("BEGIN k");
            assert!(
                told.starts_with("BUSY "),
                "{told} after {:?}",
                began.elapsed()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        ends.send(()).unwrap();
    });
    run(async {
        let options = RunOnce {
            lease: LEASE,
            ..RunOnce::default()
        };
        let block = Box::new(move || {
            starts.send(()).unwrap();
            // One that failed has not told it to go on.
            let _told = ended.recv();
        });
        let ran = blocks(client_of(&server.address), options, block).await;
        other.join().unwrap();
        assert_eq!(ran.unwrap().origin, Origin::Fresh);
    });
}

#[test]
fn work_that_blocks_its_thread_keeps_its_lease() {
    while_a_thread_is_blocked(async |client, options, block| {
        let work = |_| async {
            block();
            Ok::<_, Failure<()>>(Done::default())
        };
        client.run_once("k", &options, work).await
    });
}

/// The work is done, but what came of it is not on its way yet when something else blocks the thread.
#[test]
fn work_that_waits_to_be_stored_keeps_its_lease() {
    while_a_thread_is_blocked(async |client, options, block| {
        let is_done = Notify::new();
        let work = |_| async {
            is_done.notify_one();
            Ok::<_, Failure<()>>(Done::default())
        };
        let something_else = async {
            is_done.notified().await;
            block();
        };
        // In this order: nothing is sent between the two.
        let worked = client.run_once("k", &options, work);
        tokio::join!(biased; worked, something_else).0
    });
}

#[test]
fn work_that_was_done_is_told_when_another_took_over() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let other = client_of(&server.address);
        let work = |_| async {
            other.forget(&["k"]).await.unwrap();
            held(&other.begin("k", &BeginOptions::default()).await.unwrap());
            Ok::<_, Failure<()>>(no(201))
        };
        let told = client.run_once("k", &RunOnce::default(), work).await;
        let Err(RunOnceError::LeaseLost { outcome, .. }) = told else {
            panic!("{told:?}");
        };
        assert_eq!(outcome.unwrap().code, 201);
    });
}

#[test]
fn work_that_is_dropped_is_released() {
    let server = TestServer::start();
    run(async {
        let client = client_of(&server.address);
        let options = RunOnce::default();
        let never = |_| std::future::pending::<Result<Done, Failure<()>>>();
        let given_up = timeout(
            Duration::from_millis(100),
            client.run_once("k", &options, never),
        );
        assert!(given_up.await.is_err());
        let began = Instant::now();
        let done = |held: Held| async move {
            assert_eq!(held.attempt, 2);
            Ok::<_, Failure<()>>(Done::default())
        };
        client.run_once("k", &options, done).await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "no lease was waited for"
        );
    });
}

/// A server that is killed again and again while callers work: what it had answered stands.
#[test]
fn work_runs_once_over_kills() {
    const JOBS: u32 = 15;
    const KILLS: u32 = 3;
    let directory = Scratch::new("client-kills");
    let data = directory.join("data");
    let socket = format!("unix:{}", directory.join("onced.sock").display());
    let start = || Process::start(&data, &["--listen", &socket]);
    let mut server = Some(start());
    let told: Vec<Vec<_>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let socket = &socket;
                scope.spawn(move || run(work_through(socket, caller, JOBS)))
            })
            .collect();
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(150));
            server.take().unwrap().kill();
            server = Some(start());
        }
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    assert!(told.iter().all(|bodies| *bodies == told[0]));
    assert_eq!(told[0].len() as u32, JOBS);
}

/// One caller's way through all jobs: what it is told of each.
async fn work_through(socket: &str, caller: u64, jobs: u32) -> Vec<Bytes> {
    let client = client_of(socket);
    let mut dice = Dice::new(caller);
    let mut told = Vec::new();
    let options = RunOnce {
        lease: Duration::from_secs(10), // longer than a server is away
        patience: Duration::from_secs(20),
        ..RunOnce::default()
    };
    for job in 0..jobs {
        let pause = Duration::from_millis(dice.below(80));
        let work = |held: Held| async move {
            sleep(pause).await;
            let body = format!("{caller}-{}", held.token).into();
            Ok::<_, Failure<()>>(Done { code: 1, body })
        };
        let ran = client
            .run_once(format!("job-{job}"), &options, work)
            .await
            .unwrap();
        told.push(ran.outcome.body);
    }
    told
}
