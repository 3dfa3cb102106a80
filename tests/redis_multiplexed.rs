//! The `redis` crate's multiplexed connection, unchanged: tasks that share it hold records of one another's.
//!
//! In each round a task claims a key and works for longer than its lease, which it renews meanwhile;
//! a second task asks for the same key and is held until there is an answer; a third claims a key of
//! its own behind that. `tests/interop/one_connection.js` says what is right, and holds other clients to
//! it. A round in which this process itself came too late for its lease says nothing and is repeated.
//! `ONCED_TEST_ROUNDS` sets how many there are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::TestServer;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult, Value, cmd};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;

const ROUNDS: u32 = 1_000;
const CONNECTIONS: u32 = 100;
const LEASE_MS: u64 = 400;
/// A part of the work; two are longer than the lease.
const PART: Duration = Duration::from_millis(270);
/// The longest between a grant and what rests on it.
const LATE: Duration = Duration::from_millis(350);
const DEADLINE: Duration = Duration::from_secs(90);

type Run = (String, u64, u64, u64);

#[test]
fn tasks_on_one_connection_do_the_work_once() {
    let server = TestServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, all_rounds(&server));
}

async fn all_rounds(server: &TestServer) {
    let asked = std::env::var("ONCED_TEST_ROUNDS");
    let wanted = asked.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let began = Instant::now();
    let elsewhere = connect(server).await;
    let (started, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut connections = Vec::new();
    for connection in 0..CONNECTIONS.min(wanted) {
        let (here, elsewhere) = (connect(server).await, elsewhere.clone());
        let (started, done) = (Rc::clone(&started), Rc::clone(&done));
        connections.push(spawn_local(async move {
            // Not all at once.
            sleep(2 * PART * connection / CONNECTIONS).await;
            while done.get() < wanted && began.elapsed() < DEADLINE {
                let number = started.replace(started.get() + 1);
                let round = Round::new(&here, &format!("{number}"));
                if round.run(elsewhere.clone(), number % 4 == 3).await {
                    done.set(done.get() + 1);
                }
            }
        }));
    }
    for connection in connections {
        connection.await.unwrap();
    }
    let (started, done) = (started.get(), done.get());
    assert!(done >= wanted, "{done} of {started} rounds counted");
}

/// The crate gives up on a reply after half a second unless it is told otherwise.
async fn connect(server: &TestServer) -> MultiplexedConnection {
    let client = Client::open(format!("redis://{}", server.address)).unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    connecting.await.unwrap()
}

#[derive(Clone)]
struct Round {
    here: MultiplexedConnection,
    /// The key that two tasks want, and the one that is claimed behind them.
    mine: String,
    behind: String,
    /// How often the work behind each was begun.
    executions: Rc<RefCell<[u32; 2]>>,
    late: Rc<Cell<bool>>,
    completed_at: Rc<Cell<Option<Instant>>>,
}

impl Round {
    fn new(here: &MultiplexedConnection, name: &str) -> Self {
        Self {
            here: here.clone(),
            mine: format!("{name}:mine"),
            behind: format!("{name}:behind"),
            executions: Rc::default(),
            late: Rc::default(),
            completed_at: Rc::default(),
        }
    }

    /// False if it says nothing.
    async fn run(self, elsewhere: MultiplexedConnection, waits: bool) -> bool {
        let asked = Instant::now();
        let (run, token, lease_ms, attempt): Run = self.begin(&self.mine, None).await.unwrap();
        self.executions.borrow_mut()[0] += 1;
        assert_eq!((&run[..], lease_ms, attempt), ("RUN", LEASE_MS, 1));

        // Requests leave in the order in which these are spawned.
        let second = spawn_local(self.clone().second(waits));
        let third = spawn_local(self.clone().third());
        sleep(PART).await;
        let renewed_at = self.note_late(asked);
        let lease = format!("{LEASE_MS}ms");
        let renewed: JoinHandle<Value> =
            self.send(&["RENEW", &self.mine, &token.to_string(), "LEASE", &lease]);
        sleep(PART).await;
        let mut peek = cmd("PEEK");
        peek.arg(&self.mine).arg(&self.behind);
        let standing: String = peek.query_async(&mut elsewhere.clone()).await.unwrap();
        // The third's lease begins after this.
        let completed_at = self.note_late(renewed_at);
        self.completed_at.set(Some(completed_at));
        let body = format!("of {token}");
        let completed: JoinHandle<Value> =
            self.send(&["COMPLETE", &self.mine, &token.to_string(), "BODY", &body]);

        let second = second.await.unwrap();
        let third = third.await.unwrap();
        let (renewed, completed) = (renewed.await.unwrap(), completed.await.unwrap());
        if self.late.get() {
            return false;
        }
        assert_eq!(
            *self.executions.borrow(),
            [1, 1],
            "the second was told {second:?}"
        );
        let told: (String, u64, String) = FromRedisValue::from_redis_value(second).unwrap();
        assert_eq!(told, ("DONE".to_owned(), 0, body));
        assert_eq!(
            standing, "BN",
            "nobody has what is claimed behind a held reply"
        );
        let renewed: (String, u64) = FromRedisValue::from_redis_value(renewed).unwrap();
        assert_eq!((&renewed.0[..], renewed.1), ("OK", LEASE_MS));
        assert_eq!(completed, Value::Okay);
        assert_eq!(third, ("RUN".to_owned(), LEASE_MS, 1, "OK".to_owned()));
        true
    }

    async fn second(self, waits: bool) -> Value {
        let told: Value = if waits {
            let mut wait = cmd("ONCE.WAIT");
            wait.arg(&self.mine).arg("TIMEOUT").arg("10s");
            wait.query_async(&mut self.here.clone()).await.unwrap()
        } else {
            self.begin(&self.mine, Some("10s")).await.unwrap()
        };
        let word = match &told {
            Value::Array(items) => items.first().cloned(),
            _ => None,
        };
        if word != Some(Value::SimpleString("DONE".to_owned())) {
            // It was told to do the work too, or that nobody does.
            self.executions.borrow_mut()[0] += 1;
        }
        told
    }

    /// Its `BEGIN`'s word, lease and attempt, and what its `COMPLETE` was answered.
    async fn third(self) -> (String, u64, u64, String) {
        let (run, token, lease_ms, attempt): Run = self.begin(&self.behind, None).await.unwrap();
        self.executions.borrow_mut()[1] += 1;
        sleep(PART).await;
        if let Some(completed_at) = self.completed_at.get() {
            self.note_late(completed_at);
        }
        let mut complete = cmd("COMPLETE");
        complete
            .arg(&self.behind)
            .arg(token)
            .arg("BODY")
            .arg("of the third");
        let completed = complete.query_async(&mut self.here.clone()).await.unwrap();
        (run, lease_ms, attempt, completed)
    }

    async fn begin<T: FromRedisValue>(&self, key: &str, wait: Option<&str>) -> RedisResult<T> {
        let mut begin = cmd("BEGIN");
        begin.arg(key).arg("LEASE").arg(format!("{LEASE_MS}ms"));
        if let Some(wait) = wait {
            begin.arg("WAIT").arg(wait);
        }
        begin.query_async(&mut self.here.clone()).await
    }

    /// Sends without waiting: behind a held reply the answer waits too.
    fn send(&self, words: &[&str]) -> JoinHandle<Value> {
        let mut request = cmd(words[0]);
        request.arg(&words[1..]);
        let mut here = self.here.clone();
        spawn_local(async move { request.query_async(&mut here).await.unwrap() })
    }

    /// Takes down whether what rests on something of that time comes too late; when that is.
    fn note_late(&self, since: Instant) -> Instant {
        let now = Instant::now();
        self.late.set(self.late.get() || now - since > LATE);
        now
    }
}
