//! onced answers one question in microseconds: *is this the first time?*
//!
//! It is a sharded, in-memory check-and-set server with per-key expiry and, if wanted, an append-only
//! log that outlasts it, spoken to in a line protocol that works from netcat and in Redis's RESP, on
//! one port. This crate is the server, its parts, the pure [`store`] and the embedded, thread-safe
//! [`engine`], and the async [`client`].
//!
//! # The house
//!
//! A file imports only from floors below its own, or from its own folder.
//!
//! | floor | what | does not |
//! |---|---|---|
//! | 0 | [`time`], [`limits`], [`address`]: words and bounds; `eight`: eight bytes at once; `json`: values in JSON texts, and their canonical form; `size`: words for bytes; `small_file`: settings and the like, read whole | read a clock |
//! | 1 | [`store`]: keys, table, timing wheel, idempotency records, shard; [`command`]: what can be asked and answered | do I/O, lock, or draw randomness |
//! | 2 | [`wire`]: bytes to commands and back; [`log`]: changes to files and back; [`metrics`]: counters | know sockets |
//! | 3 | [`engine`]: shards behind locks, namespaces, memory budget, commands executed | know connections |
//! | 4 | [`server`]: listeners, workers, connections, the only clock; [`client`]: the async client, and on it `http`: the tower layer (feature `http`) | decide anything about keys |
//! | 5 | [`config`]: settings; [`cli`]: subcommands; `allocator`: the binary's (feature `jemalloc`) | |
//!
//! # One request's way
//!
//! `SEEN order-17 60s` arrives at a socket.
//!
//! 1. `server/listen.rs` accepted its connection and `server/mod.rs` gave it to the worker with
//!    the fewest; that worker's `server/connection.rs` reads what has come into a buffer that
//!    the worker's connections share, and reads the clock, once for all of it.
//! 2. [`wire::Decoder`] finds the line's end and its words, as spans over that buffer.
//! 3. `server/client.rs` looks the verb up in [`command::spec`], whose row turns the words into
//!    a [`command::Command`], checked against the [`limits`], still borrowed from the buffer.
//! 4. The key is packed and hashed ([`store::key`]) and waits in `server/batch.rs` for the requests
//!    behind it, as long as they are questions of this kind and have already come.
//!    [`engine::Engine::ask`] then sorts the batch by shard, starts to fetch what it will look at,
//!    and locks one shard after the other. (All other commands go to
//!    [`engine::Engine::execute`], one at a time.)
//! 5. [`store::Shard::seen`] looks the key up in the table, compares its deadline with the
//!    clock's reading, and if it is new, asks whether there is room and stores it. If there is a
//!    [`log`], the change's place in it was promised before, and the record is appended now
//!    (`engine/journal.rs`). The lock is released.
//! 6. The [`command::Reply`] is encoded behind those of the requests before it. When all that
//!    was read is executed and the log has what that may rest on (`server/acks.rs`), one write
//!    sends them.
//!
//! A thread beside the workers gives the memory of lapsed keys back ([`engine::Engine::sweep`]), a
//! few at a time; no answer waits for it or depends on it. With a log there are three more
//! (`server/keeper.rs`): one that reads it at the start, one that syncs, and one that prepares, deletes
//! and compacts its segments.
//!
//! `BEGIN charge-17 WAIT 10s` goes the same way to [`engine::Engine::execute_or_wait`]. What it may do
//! is decided by [`store::record`], which knows nothing but the record, the request and the moment.
//! Where another is at work, the request takes a place in line ([`engine::waiters`]) while the shard is
//! still locked, and is kept by its connection (`server/held.rs`); who changes the record wakes it, and it
//! is executed again. Requests behind it are executed meanwhile, and their replies wait.
//!
//! # What always holds
//!
//! - For a key, from its first `NEW` to its deadline, every other asker is told `DUP`: the
//!   decision and the change happen under one lock.
//! - A key is compared byte for byte; hashes only choose places. A namespace may choose to compare
//!   long keys by digests under a secret.
//! - A key that is not there is `NEW` with certainty only where the memory reaches back far enough:
//!   what was lost or evicted is known by moments, which a namespace keeps.
//! - A record has one token at a time, tokens rise, and a token that is not the last changes nothing.
//! - The store reads no clock. A key lives while `now <= deadline`, with `now` rounded down.
//! - Nothing from outside makes memory grow by more than what arrived, or runs without a bound:
//!   the bounds are in [`limits`].
//! - No reply is sent before the log has every change that it may rest on, whoever made that.
//! - No shard's lock is held across an `await`, nor across a system call, but while its table gets more
//!   memory from the system, or where a change needs more of the log than was promised ahead. The log's
//!   own locks are taken last, and that under which records are appended is never held across one.

pub mod address;
#[cfg(feature = "jemalloc")]
#[doc(hidden)]
pub mod allocator;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
mod eight;
pub mod engine;
#[cfg(feature = "http")]
pub mod http;
mod json;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod server;
mod size;
mod small_file;
pub mod store;
pub mod time;
pub mod wire;

/// Compiles and runs the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
