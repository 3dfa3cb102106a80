//! Consumers of a stream that delivers at least once, and that die now and then: they claim a batch,
//! work, and acknowledge it.
//!
//! ```sh
//! cargo run --example stream_consumer
//! ```
//!
//! Each event is delivered up to three times, to any of four consumers. A consumer claims what it was
//! delivered with one `MBEGIN`, works on what is its own, and says so with one `MCOMPLETE`. What another
//! has done is dropped; what another is at, or what there was no room for, is left for a later delivery. When
//! a consumer dies, or a reply is lost, the leases lapse and the stream delivers again.
//!
//! Between working on an event and saying so a consumer may die too, and then the event is worked on
//! again: no queue can prevent that. So what is written keeps the fencing token it was written under,
//! and is written over, not added.

#[path = "support/mod.rs"]
mod support;

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onced::client::{Claimed, Client, Ending};
use tokio::time::sleep;

const EVENTS: u64 = 10_000;
const CONSUMERS: u64 = 4;
const BATCH: usize = 100;
/// One batch in so many is the last thing that its consumer does.
const DEATHS: u64 = 20;
/// How long the events of a dead consumer wait; a few times what a batch takes.
const LEASE: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_hours(1);

#[derive(Clone, Copy)]
struct Event {
    id: u64,
    amount: u64,
}

impl Event {
    fn key(self) -> String {
        format!("event-{}", self.id)
    }
}

/// A stream: what was not acknowledged is delivered again.
#[derive(Default)]
struct Stream {
    waiting: Mutex<VecDeque<Event>>,
    delivered: AtomicU64,
}

impl Stream {
    /// Every event, once to three times, in no order.
    fn new(dice: &mut Dice) -> Self {
        let mut events = Vec::new();
        for id in 0..EVENTS {
            for _ in 0..=dice.below(3) {
                events.push(Event { id, amount: id + 1 });
            }
        }
        for at in (1..events.len()).rev() {
            events.swap(at, dice.below(at as u64 + 1) as usize);
        }
        Self {
            waiting: Mutex::new(events.into()),
            ..Self::default()
        }
    }

    fn deliver(&self) -> Vec<Event> {
        let mut waiting = self.waiting.lock().expect("nobody panics here");
        let count = waiting.len().min(BATCH);
        self.delivered.fetch_add(count as u64, Ordering::Relaxed);
        waiting.drain(..count).collect()
    }

    fn deliver_again(&self, events: impl IntoIterator<Item = Event>) {
        self.waiting
            .lock()
            .expect("nobody panics here")
            .extend(events);
    }
}

/// What the events come to: a table with the amount of each, and the token that it was written under.
#[derive(Default)]
struct Ledger {
    rows: Mutex<HashMap<u64, (u64, u64)>>,
    writes: AtomicU64,
}

impl Ledger {
    /// `UPDATE … SET amount = ?, fence = ? WHERE id = ? AND fence <= ?`.
    fn write(&self, event: Event, token: u64) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut rows = self.rows.lock().expect("nobody panics here");
        let row = rows.entry(event.id).or_default();
        if row.1 <= token {
            *row = (event.amount, token);
        }
    }

    fn total(&self) -> u64 {
        let rows = self.rows.lock().expect("nobody panics here");
        rows.values().map(|(amount, _)| amount).sum()
    }
}

/// Everything that a consumer knows; it dies, and the next one begins with the same.
struct Consumer {
    client: Client,
    stream: Arc<Stream>,
    ledger: Arc<Ledger>,
    dice: Dice,
}

impl Consumer {
    /// Consumes until there is nothing more to do; how often it died.
    async fn run(mut self) -> Result<u64, onced::client::ClientError> {
        let mut deaths = 0;
        loop {
            let batch = self.stream.deliver();
            if batch.is_empty() {
                return Ok(deaths);
            }
            let dies = self.dice.below(DEATHS) == 0;
            let acknowledged = match self.consume(&batch, dies).await {
                Ok(acknowledged) => acknowledged,
                // A reply was lost: nobody knows what was claimed, or ended. What is not acknowledged to the
                // stream comes again, and by then it is done, or its claim has lapsed.
                Err(error) if error.is_transient() => {
                    sleep(LEASE / 10).await;
                    self.stream.deliver_again(batch);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !acknowledged {
                // Dead; its batch is delivered to others, some time later.
                deaths += 1;
                self.stream.deliver_again(batch);
            }
        }
    }

    /// Works on what is its own of a batch; false if it died in the middle.
    async fn consume(
        &mut self,
        batch: &[Event],
        dies: bool,
    ) -> Result<bool, onced::client::ClientError> {
        let keys: Vec<_> = batch.iter().map(|event| event.key()).collect();
        let claimed = self
            .client
            .mbegin(&keys, (Some(WINDOW), Some(LEASE)))
            .await?;
        let mut done = Vec::new();
        let mut busy = Vec::new();
        let dies_after = if dies {
            self.dice.below(BATCH as u64)
        } else {
            u64::MAX
        };
        for (at, (event, claimed)) in batch.iter().zip(claimed).enumerate() {
            if at as u64 >= dies_after {
                return Ok(false);
            }
            match claimed {
                Claimed::Run(token) | Claimed::Unsure(token) => {
                    self.ledger.write(*event, token);
                    done.push((event.key(), token));
                }
                // Done before, or twice in this batch.
                Claimed::Completed | Claimed::Failed | Claimed::Dup => {}
                // Another is at it, or there was no room: a later delivery will tell.
                Claimed::Busy | Claimed::NotStored => busy.push(*event),
            }
        }
        for ending in self.client.mcomplete(&done).await? {
            // Too slow: another took it over, and its word counts.
            if ending != Ending::Ok {
                println!("one was taken over: {ending:?}");
            }
        }
        if !busy.is_empty() {
            sleep(LEASE / 10).await;
            self.stream.deliver_again(busy);
        }
        Ok(true)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let client = support::client()?;
    let mut dice = Dice(17);
    let stream = Arc::new(Stream::new(&mut dice));
    let ledger = Arc::new(Ledger::default());
    let mut consumers = tokio::task::JoinSet::new();
    for number in 0..CONSUMERS {
        let consumer = Consumer {
            client: client.clone(),
            stream: Arc::clone(&stream),
            ledger: Arc::clone(&ledger),
            dice: Dice(number),
        };
        consumers.spawn(consumer.run());
    }
    let mut deaths = 0;
    while let Some(consumer) = consumers.join_next().await {
        deaths += consumer??;
    }
    let delivered = stream.delivered.load(Ordering::Relaxed);
    let writes = ledger.writes.load(Ordering::Relaxed);
    let (total, wanted) = (ledger.total(), EVENTS * (EVENTS + 1) / 2);
    println!(
        "{EVENTS} events, delivered {delivered} times; {deaths} consumers died in the middle of a batch"
    );
    println!(
        "worked on {writes} times: {} were begun again after a death",
        writes - EVENTS
    );
    println!("total {total}, and {wanted} is right");
    Ok(if total == wanted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Numbers that look random; the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64, of Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
