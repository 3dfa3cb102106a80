//! The allocator of the `onced` binary: jemalloc, for what it gives back. Who uses the library chooses another.
//!
//! Measured 2026-11-29 on 2 cores of an AMD EPYC under KVM, with 64 MiB of `--max-memory`: MiB resident at the
//! most, and ten seconds after everything was deleted, where nine of ten small values were deleted at random and
//! larger ones stored (`tests/held_memory.rs`).
//!
//! | | values that grow | a mix by seed |
//! |---|---|---|
//! | glibc 2.36 | 145, then 145 | 214, then 212 |
//! | glibc, one arena, low thresholds | 142, then 88 | 121, then 106 |
//! | mimalloc 2 | 213, then 214 | 284, then 192 |
//! | mimalloc 3 | 196, then 199 | 167, then 158 |
//! | jemalloc 5.3 as it comes | 197, then 142 | 244, then 127 |
//! | jemalloc, its own thread, decay of a second | 190, then 37 | 134, then 35 |
//! | as it is here, and what is left moved together | 90, then 28 | 91, then 30 |
//!
//! Only jemalloc's thread gives back while all others are idle. What no allocator mends is what is left of small
//! values on many pages; `server/sweeper.rs` moves that together, into the fullest pages, which jemalloc takes first.
//!
//! The server's CPU per key was 1.004, 1.004, 1.021 and 1.007 times that with glibc (`SEEN` with 800, 16 and 128 in
//! flight, `SET` with 800; medians of five pairs of `onced bench`): the hot path allocates nothing.

use tikv_jemalloc_ctl::{Access, AsName};
pub use tikv_jemallocator::Jemalloc;

use crate::server;

/// For `#[global_allocator]`.
pub const JEMALLOC: Jemalloc = Jemalloc;

/// The type of [`SETTINGS`].
pub type Settings = &'static [u8; 21];

/// What is settled before anything is allocated: blocks of 128 bytes to 4 KiB come in runs of 16 pages, and smaller
/// ones by 512, where jemalloc would take one page for many sizes. It describes each run in 128 bytes, which it keeps
/// for good: after 4 GiB were stored and deleted, 58 to 143 MiB stayed resident, and 27 to 53 do now
/// (`ONCED_MEMORY=4096 cargo test --release --test held_memory`, 2026-11-30). Larger blocks are not moved together by
/// the sweeper, and one that is left would hold more of them.
pub const SETTINGS: Settings = b"slab_sizes:1-4096:16\0";

/// How long what is not used is kept at the most.
const DECAY_MS: isize = 250;

/// Has the allocator give back what is not used, whoever is idle, after a moment; and tells servers of this process.
pub fn settle() {
    let _as_it_is = "arenas.dirty_decay_ms\0".name().write(DECAY_MS);
    let _as_it_is = "arenas.muzzy_decay_ms\0".name().write(0_isize);
    // The arena of this thread is there already, and has its own.
    decay(DECAY_MS);
    let _as_it_is = "arena.0.muzzy_decay_ms\0".name().write(0_isize);
    let _as_it_is = tikv_jemalloc_ctl::background_thread::write(true);
    server::allocator_gives_back(server::Allocator {
        begin_thread: |sweeps| {
            // One for all: what is moved together goes where it came from, to pages that others have half filled.
            // With one for each thread, a sweep held everything twice for a moment.
            let _as_it_is = "thread.arena\0".name().write(0_u32);
            if sweeps {
                // What it frees is not to be kept for what it moves next.
                let _as_it_is = "thread.tcache.enabled\0".name().write(false);
            }
        },
        purge: || {
            decay(0);
            decay(DECAY_MS);
        },
    });
}

/// Of the one arena.
fn decay(ms: isize) {
    let _as_it_is = "arena.0.dirty_decay_ms\0".name().write(ms);
}
