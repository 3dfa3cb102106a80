//! A transactional outbox over SQLite: what is committed is published, and taken in once.
//!
//! ```sh
//! cargo run --example outbox
//! ```
//!
//! An order and the message about it are written in one transaction, so neither is there without the
//! other. Two relays, for when one is down, publish what is in the outbox. They share the work by
//! claiming messages in onced (`MBEGIN`, then `MCOMPLETE`), not by locks in the database, and now and
//! then one dies in the middle: its claims lapse, and the other takes over.
//!
//! A relay that dies between publishing a message and saying so leaves one that is published again:
//! no relay can prevent that. So who takes messages in begins and completes each under its id, and drops
//! the repeat. (Should it die in the middle, it takes that message in again: let it write where that does
//! no harm, or in one transaction with the id.)
//!
//! Relays work side by side, so messages about different orders may overtake each other.

#[path = "support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use onced::client::{Claimed, Client, Done, Origin, RunOnce};
use rusqlite::{Connection, params};
use tokio::sync::mpsc;
use tokio::time::sleep;

const ORDERS: u32 = 2_000;
/// Between two orders.
const PAUSE: Duration = Duration::from_millis(1);
/// How often a relay looks into the outbox that had nothing to do.
const POLL: Duration = Duration::from_millis(2);
const BATCH: u32 = 50;
/// How long what a dead relay had claimed waits.
const LEASE: Duration = Duration::from_millis(500);
/// Longer than a message could be published again after the first time.
const WINDOW: Duration = Duration::from_hours(24);
/// A relay dies once in so many messages.
const DEATHS: u32 = 400;

type Failure = Box<dyn Error + Send + Sync>;

/// A message on its way to the subscriber.
struct Message {
    id: String,
    committed_ms: i64,
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(5))?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, cents INTEGER NOT NULL);
         CREATE TABLE IF NOT EXISTS outbox (
             id TEXT PRIMARY KEY,
             committed_ms INTEGER NOT NULL,
             published INTEGER NOT NULL DEFAULT 0
         );
         CREATE INDEX IF NOT EXISTS unpublished ON outbox (committed_ms) WHERE NOT published;",
    )?;
    Ok(database)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// The service: an order and its message, or neither.
fn take_orders(path: &Path) -> Result<(), rusqlite::Error> {
    let mut database = open(path)?;
    for number in 0..ORDERS {
        let transaction = database.transaction()?;
        transaction.execute(
            "INSERT INTO orders VALUES (?, ?)",
            params![number, 100 + number],
        )?;
        let id = format!("order-{number}-placed");
        transaction.execute(
            "INSERT INTO outbox (id, committed_ms) VALUES (?, ?)",
            params![id, now_ms()],
        )?;
        transaction.commit()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Publishes what is in the outbox, until all of it is; returns what it did and how often it died.
async fn relay(
    path: PathBuf,
    client: Client,
    broker: mpsc::UnboundedSender<Message>,
    seed: u32,
) -> Result<Relayed, Failure> {
    let database = open(&path)?;
    let mut relayed = Relayed::default();
    let mut until_death = DEATHS / 2 + seed * 37;
    while !is_done(&database)? {
        let waiting = unpublished(&database)?;
        let ids: Vec<_> = waiting.iter().map(|message| message.id.clone()).collect();
        let claimed = client.mbegin(&ids, (Some(WINDOW), Some(LEASE))).await?;
        let (mut done, mut published, mut is_dead) = (Vec::new(), Vec::new(), false);
        for (message, claimed) in waiting.into_iter().zip(claimed) {
            match claimed {
                Claimed::Run(token) | Claimed::Unsure(token) => {
                    let id = message.id.clone();
                    broker.send(message)?;
                    relayed.published += 1;
                    until_death -= 1;
                    if until_death == 0 {
                        is_dead = true;
                        break;
                    }
                    done.push((id, token));
                }
                // Published by one that died before it could mark it.
                Claimed::Completed => published.push(message.id),
                // The other one is at it.
                Claimed::Busy | Claimed::NotStored => {}
                Claimed::Failed | Claimed::Dup => {
                    return Err(format!("{} is used for something else", message.id).into());
                }
            }
        }
        if is_dead {
            // Nothing of this batch was said to be done: it is published again, once its lease has lapsed.
            relayed.deaths += 1;
            until_death = DEATHS;
            continue;
        }
        if done.is_empty() && published.is_empty() {
            sleep(POLL).await;
            continue;
        }
        client.mcomplete(&done).await?;
        published.extend(done.into_iter().map(|(id, _)| id));
        mark(&database, &published)?;
    }
    Ok(relayed)
}

/// What a relay did.
#[derive(Default)]
struct Relayed {
    published: u32,
    deaths: u32,
}

fn is_done(database: &Connection) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT count(*) FROM outbox WHERE published";
    let published: u32 = database.query_row(sql, [], |row| row.get(0))?;
    Ok(published == ORDERS)
}

fn unpublished(database: &Connection) -> Result<Vec<Message>, rusqlite::Error> {
    let sql =
        "SELECT id, committed_ms FROM outbox WHERE NOT published ORDER BY committed_ms LIMIT ?";
    let mut statement = database.prepare(sql)?;
    let rows = statement.query_map([BATCH], |row| {
        Ok(Message {
            id: row.get(0)?,
            committed_ms: row.get(1)?,
        })
    })?;
    rows.collect()
}

fn mark(database: &Connection, ids: &[String]) -> Result<(), rusqlite::Error> {
    let transaction = database.unchecked_transaction()?;
    for id in ids {
        transaction.execute("UPDATE outbox SET published = 1 WHERE id = ?", [id])?;
    }
    transaction.commit()
}

/// What the subscriber got.
struct Delivered {
    /// How often each message was taken in.
    taken: HashMap<String, u32>,
    repeats: u32,
    /// From commit to the moment it was taken in, in milliseconds.
    lag_ms: Histogram<u64>,
}

/// Takes in what is published, each message once.
async fn subscribe(
    client: Client,
    mut messages: mpsc::UnboundedReceiver<Message>,
) -> Result<Delivered, Failure> {
    let mut delivered = Delivered {
        taken: HashMap::new(),
        repeats: 0,
        lag_ms: Histogram::new(3)?,
    };
    let options = RunOnce {
        ttl: Some(WINDOW),
        ..RunOnce::default()
    };
    while let Some(message) = messages.recv().await {
        let key = format!("subscriber/{}", message.id);
        let take_in = async |_| Ok::<_, onced::client::Failure<Failure>>(Done::default());
        if client.run_once(key, &options, take_in).await?.origin == Origin::Replayed {
            delivered.repeats += 1;
            continue;
        }
        delivered
            .lag_ms
            .saturating_record((now_ms() - message.committed_ms).max(0).unsigned_abs());
        *delivered.taken.entry(message.id).or_default() += 1;
    }
    Ok(delivered)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    let client = support::client().map_err(|error| error.to_string())?;
    let directory = std::env::temp_dir().join(format!("onced-outbox-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("orders.sqlite");
    drop(open(&path)?);
    let began = Instant::now();
    let (broker, messages) = mpsc::unbounded_channel();
    let orders = {
        let path = path.clone();
        std::thread::spawn(move || take_orders(&path))
    };
    let relays = (0..2).map(|seed| relay(path.clone(), client.clone(), broker.clone(), seed));
    let relays: Vec<_> = relays.map(tokio::spawn).collect();
    drop(broker);
    let subscriber = tokio::spawn(subscribe(client, messages));
    let mut all = Relayed::default();
    for relay in relays {
        let relayed = relay.await??;
        all.published += relayed.published;
        all.deaths += relayed.deaths;
    }
    let delivered = subscriber.await??;
    orders.join().expect("taking orders does not panic")?;
    std::fs::remove_dir_all(&directory)?;

    let once = delivered
        .taken
        .values()
        .filter(|count| **count == 1)
        .count();
    println!(
        "{ORDERS} orders with their messages, in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    println!(
        "two relays published {} times; {} times one died in the middle",
        all.published, all.deaths
    );
    println!(
        "the subscriber took in {once} messages once each, and dropped {} repeats",
        delivered.repeats
    );
    let lag = |share| delivered.lag_ms.value_at_quantile(share);
    println!(
        "lag from commit to there: p50 {} ms, p99 {} ms, longest {} ms (a dead relay's lease is {} ms)",
        lag(0.5),
        lag(0.99),
        delivered.lag_ms.max(),
        LEASE.as_millis()
    );
    let is_right = once == ORDERS as usize && delivered.taken.len() == once;
    Ok(if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
