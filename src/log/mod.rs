//! The append-only log: changes to files, and files back to changes.
//!
//! A key that was seen must stay seen when the process, or the machine, is gone. So whoever changes a
//! key appends a record to the log before anybody is told, and a start reads the records again. The
//! files and their bytes are in `log-format.md`; what a client may rely on is in `protocol.md`.
//!
//! # Floors
//!
//! | file | what |
//! |---|---|
//! | [`storage`] | what the log asks of a disk: a directory of files; [`disk`] is a real one, by way of `directory`, which follows no links; tests bring others |
//! | [`segment`], [`frame`], [`record`], [`control`] | bytes: a file's header; what is whole or not there; a key's state; what the log says of itself |
//! | [`mod@format`] | frames on a disk: what vouches for them, and how they are found behind damage |
//! | [`spaces`] | the namespaces as of a place in a log, as its controls tell |
//! | [`writer`] | the writing end: appending, writing, syncing, segments in their order |
//! | [`held`] | a directory's files as they were at one moment, while a server writes there |
//! | [`reader`], [`mend`] | the reading end: what a directory holds, what is a tail and what is damage; and making it so |
//! | [`compact`] | writing segments anew without what does not count any more |
//!
//! The engine's side is in its `journal` (a change becomes a record) and `restore` (records become keys),
//! the threads are in the server's `keeper`, and `acks` there lets replies wait.
//!
//! # One change's way
//!
//! 1. Space is [promised](writer::Log::promise): segments are reserved ahead, so a full disk refuses
//!    the change now, while nothing has happened yet.
//! 2. The shard is locked and changed, and the record goes into a frame, which is
//!    [appended](writer::Log::append) in memory before the shard is unlocked.
//! 3. What its connections appended is [written](writer::Log::write) by a worker once in a turn of its
//!    loop; under [`Fsync::Always`](writer::Fsync) a thread [syncs](writer::Log::sync) instead, once for
//!    all who wait.
//! 4. Once the log is [acknowledged](writer::Log::acknowledged) up to where it was when the request
//!    had been executed, the reply is sent.
//! 5. When its last deadline has passed, the segment is [deleted](writer::Log::tend).
//!
//! # What always holds
//!
//! - The log has the changes of each key in the order in which they were made: both happen under the
//!   shard's lock.
//! - No reply is sent before what it may rest on, whoever made it, is acknowledged.
//! - A record says all there is to say of its key, and matters no longer than its own deadline says. So
//!   segments can be deleted in any order, and records left out that have lapsed.
//! - A segment is complete, or the newest. Complete ones are only deleted or replaced, in one step; nothing
//!   is appended to a segment of an earlier run.
//! - What failed once is not tried again: after a failed sync nobody knows what the system has thrown
//!   away, so the log takes no more until the next start. (A. Rebello et al., "Can Applications Recover
//!   from fsync Failures?", USENIX ATC 2020.) Only a lack passes: of space, or of what
//!   processes share, such as descriptors.
//! - Bytes that were read are believed only under a checksum, and take no more memory than they are. What clients
//!   store stands in frames and never passes for one: see [`mod@format`].
//!
//! # What it does not do
//!
//! It reads no clock and has no threads: the present is an argument, and who has time calls
//! [`sync`](writer::Log::sync), [`tend`](writer::Log::tend) and [`step`](compact::Compactor::step). It
//! knows keys as bytes and packed forms, not hashes, shards or verdicts. It does not replicate, compress
//! or encrypt, and it is no history: what does not count any more goes.

pub mod compact;
pub mod control;
mod directory;
pub mod disk;
pub mod format;
pub mod frame;
pub mod held;
pub mod mend;
mod notes;
pub mod reader;
pub mod record;
pub mod segment;
pub mod spaces;
pub mod storage;
mod walk;
pub mod writer;
