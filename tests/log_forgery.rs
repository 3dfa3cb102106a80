//! Clients that store frames: in values, bodies, long keys and HTTP responses they put what looks like the
//! log's own frames, then the log is torn or damaged. No start takes what they stored for history.
//!
//! The attackers know everything but the secrets of segments: the format, the log's identity, numbers,
//! places, deadlines, and the frames of version 1, which anybody can make.
//!
//! What is played follows from seeds; `ONCED_FORGERY_SEED=17` plays one alone. The long form is
//! `ONCED_FORGERY_LOGS=100000 ONCED_FORGERY_KILLS=200 cargo test --release --test log_forgery`.

#![allow(missing_docs, unreachable_pub)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

#[path = "log_forgery/attack.rs"]
mod attack;
mod common;
#[path = "log_forgery/damaged.rs"]
mod damaged;
#[path = "common/frames.rs"]
mod frames;
#[path = "log_forgery/kills.rs"]
mod kills;
#[path = "common/simulated_disk/mod.rs"]
mod simulated_disk;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}
