//! Where buckets live: blocks of 256 in chunks that all shards share, smaller ones on the heap.
//!
//! The chunks are the process's, not a shard's: what one shard gives back, any other uses next,
//! and the lowest chunk with room is used first, so that the others become empty and can be
//! returned, which [`tend`] does bit by bit.
//!
//! Huge pages do not pay on the machine of the README's figures. With chunks of 2 MiB for which they
//! were asked for, `MSEEN` of 100 took 0.265 µs of server CPU per new key instead of 0.216, and `SEEN`
//! with 128 in flight 0.43 instead of 0.36: the system clears whole pages, and where the hypervisor
//! has to supply them first, one takes some 5 ms. For known keys, of 10 million, it was 0.116 instead of
//! 0.117, and the same with 128 in flight (medians of 3 to 5 paired runs). So a chunk is small, and
//! gets its memory in one call when its first block is wanted.
//!
//! This is the one place of the store with `unsafe` code: raw memory, and the prefetch
//! instruction. It hands out [`Buckets`], which own their memory and behave like a slice.

#![allow(
    unsafe_code,
    reason = "memory shared by all shards, and prefetching; argued at each block"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use parking_lot::Mutex;
#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::bucket::Bucket;

/// Buckets of a full block.
pub(super) const BLOCK_BUCKETS: usize = 1 << BLOCK_BITS;
const BLOCK_BITS: usize = 8;
const BLOCK_BYTES: usize = BLOCK_BUCKETS * size_of::<Bucket>();
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_BLOCKS: usize = CHUNK_BYTES / BLOCK_BYTES;
/// Chunks of address space that are asked for at a time.
const SPAN_CHUNKS: usize = 256;
/// Empty chunks that one call of [`tend`] returns at most.
const TENDED_MAX: usize = 4;

/// Between 1 and 256 buckets, a power of two, all vacant at first.
///
/// The pointer's lowest bits are free, since buckets are aligned to 64 bytes: they hold the
/// logarithm of the length, so that a segment's four blocks fit half a cache line.
#[derive(Debug)]
pub(super) struct Buckets(NonNull<u8>);

const TAG: usize = 0b1111;
const _: () = assert!(BLOCK_BITS <= TAG && TAG < align_of::<Bucket>());

// SAFETY (1): `Buckets` owns the memory it points to, as a `Box<[Bucket]>` would, and buckets
// are plain numbers.
unsafe impl Send for Buckets {}
// SAFETY (2): as above; `&Buckets` gives only `&[Bucket]`.
unsafe impl Sync for Buckets {}

impl Buckets {
    /// So many vacant buckets: a power of two, at most [`BLOCK_BUCKETS`].
    pub(super) fn new(len: usize) -> Self {
        assert!(len.is_power_of_two() && len <= BLOCK_BUCKETS);
        let memory = if len == BLOCK_BUCKETS {
            let block = take_block();
            // SAFETY (3): the pool gave these BLOCK_BYTES to nobody else, and they are mapped writable.
            unsafe { block.write_bytes(0, BLOCK_BYTES) };
            block
        } else {
            let layout = layout(len);
            // SAFETY (4): the layout's size is not zero.
            let memory = unsafe { alloc_zeroed(layout) };
            NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
        };
        Self(memory.map_addr(|address| address | len.trailing_zeros() as usize))
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        1 << (self.0.addr().get() & TAG)
    }

    /// Bytes that so many buckets take.
    pub(super) const fn bytes_of(len: usize) -> usize {
        len * size_of::<Bucket>()
    }

    /// Starts to fetch a bucket into the cache.
    #[inline]
    pub(super) fn prefetch(&self, bucket: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let place = self.first().wrapping_add(bucket);
            // SAFETY (5): a prefetch reads nothing and never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = bucket;
    }

    #[inline]
    fn first(&self) -> *mut Bucket {
        let memory = self.0.as_ptr();
        memory.map_addr(|address| address & !TAG).cast()
    }
}

impl Deref for Buckets {
    type Target = [Bucket];

    #[inline]
    fn deref(&self) -> &[Bucket] {
        // SAFETY (6): `first` points to `len` buckets that this owns; zeroed bytes are a valid
        // bucket, and they were aligned and zeroed when they were made.
        unsafe { std::slice::from_raw_parts(self.first(), self.len()) }
    }
}

impl DerefMut for Buckets {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Bucket] {
        // SAFETY (7): as (6), and `&mut self` is the only way to them now.
        unsafe { std::slice::from_raw_parts_mut(self.first(), self.len()) }
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        let len = self.len();
        let memory = self.first().cast::<u8>();
        if len == BLOCK_BUCKETS {
            POOL.lock().give(memory.addr());
        } else {
            // SAFETY (8): it was allocated with this layout, and nobody can use it any more.
            unsafe { dealloc(memory, layout(len)) };
        }
    }
}

fn layout(len: usize) -> Layout {
    Layout::array::<Bucket>(len).expect("at most 256 buckets are far below the address space")
}

fn take_block() -> NonNull<u8> {
    loop {
        let mut pool = POOL.lock();
        if let Some(block) = pool.take() {
            return block;
        }
        let chunk = pool.bare_chunk();
        drop(pool);
        // The system's work is done without the lock: the chunk belongs to nobody else meanwhile.
        populate(chunk);
        POOL.lock().open(chunk);
    }
}

/// Returns some empty chunks to the system, beyond as many as came into use since the last call;
/// whether there may be more of them.
pub(super) fn tend() -> bool {
    let kept = std::mem::take(&mut POOL.lock().opened);
    for _ in 0..TENDED_MAX {
        let mut pool = POOL.lock();
        if pool.empty.len() <= kept {
            return false;
        }
        let Some(chunk) = pool.empty.pop() else {
            return false;
        };
        drop(pool);
        return_memory(chunk);
        POOL.lock().bare.push(chunk);
    }
    true
}

/// The process's chunks. They are kept as addresses whose provenance was exposed when they were mapped.
struct Pool {
    /// Those that blocks are cut out of, with a bit for each block that is free.
    chunks: BTreeMap<usize, FreeBlocks>,
    /// Those of them that have a free block.
    open: BTreeSet<usize>,
    /// Unused, with memory behind them.
    empty: Vec<usize>,
    /// Unused, without memory behind them.
    bare: Vec<usize>,
    /// How many came into use since [`tend`] looked.
    opened: usize,
}

type FreeBlocks = u16;
const _: () = assert!(FreeBlocks::BITS as usize == CHUNK_BLOCKS);

static POOL: Mutex<Pool> = Mutex::new(Pool {
    chunks: BTreeMap::new(),
    open: BTreeSet::new(),
    empty: Vec::new(),
    bare: Vec::new(),
    opened: 0,
});

impl Pool {
    /// A free block of the lowest chunk that has one; `None` if no chunk with memory has.
    fn take(&mut self) -> Option<NonNull<u8>> {
        if self.open.is_empty() {
            let empty = self.empty.pop()?;
            self.open(empty);
        }
        let &address = self.open.first()?;
        let free = self.chunks.get_mut(&address);
        let free = free.expect("an open chunk is a chunk in use");
        let block = free.trailing_zeros() as usize;
        *free &= *free - 1;
        if *free == 0 {
            self.open.remove(&address);
        }
        let block = ptr::with_exposed_provenance_mut(address + block * BLOCK_BYTES);
        Some(NonNull::new(block).expect("no chunk lies at address 0"))
    }

    fn give(&mut self, address: usize) {
        let chunk = address & !(CHUNK_BYTES - 1);
        let free = self.chunks.get_mut(&chunk);
        let free = free.expect("a block comes from a chunk in use");
        let bit = 1 << ((address - chunk) / BLOCK_BYTES);
        assert!(*free & bit == 0, "a block is given once");
        *free |= bit;
        if *free == FreeBlocks::MAX {
            self.chunks.remove(&chunk);
            self.open.remove(&chunk);
            self.empty.push(chunk);
        } else {
            self.open.insert(chunk);
        }
    }

    /// Brings a chunk with memory behind it into use.
    fn open(&mut self, chunk: usize) {
        self.chunks.insert(chunk, FreeBlocks::MAX);
        self.open.insert(chunk);
        self.opened += 1;
    }

    fn bare_chunk(&mut self) -> usize {
        if self.bare.is_empty() {
            self.bare.extend(map_span());
        }
        self.bare.pop().expect("a span has chunks")
    }
}

/// The addresses of some new chunks, the highest first.
fn map_span() -> impl Iterator<Item = usize> {
    // One chunk more than is used, so that the others can be aligned.
    let bytes = (SPAN_CHUNKS + 1) * CHUNK_BYTES;
    #[cfg(target_os = "linux")]
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    #[cfg(not(target_os = "linux"))]
    let flags = MapFlags::PRIVATE;
    // SAFETY (9): a new mapping, at an address that the system chooses, overlaps nothing.
    let mapped = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
        )
    };
    let Ok(mapped) = mapped else {
        handle_alloc_error(Layout::new::<[u8; CHUNK_BYTES]>())
    };
    let first = mapped.expose_provenance().next_multiple_of(CHUNK_BYTES);
    (0..SPAN_CHUNKS).rev().map(move |n| first + n * CHUNK_BYTES)
}

/// Has the system put memory behind a chunk now; where it cannot, the first touch does.
fn populate(chunk: usize) {
    #[cfg(target_os = "linux")]
    advise(chunk, Advice::LinuxPopulateWrite);
    #[cfg(not(target_os = "linux"))]
    let _ = chunk;
}

/// Takes the memory from behind a chunk that no block is in; it reads as zeroes when it is touched again.
fn return_memory(chunk: usize) {
    #[cfg(target_os = "linux")]
    advise(chunk, Advice::LinuxDontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = chunk;
}

#[cfg(target_os = "linux")]
fn advise(chunk: usize, advice: Advice) {
    let chunk = ptr::with_exposed_provenance_mut(chunk);
    // SAFETY (10): the range is our own mapping. Of the advice given here only `DontNeed` changes
    // what memory holds, and that is given for chunks in which no block is in use.
    let advised = unsafe { madvise(chunk, CHUNK_BYTES, advice) };
    // A system without this advice is only slower, or keeps the memory.
    let _ = advised;
}

#[cfg(test)]
mod tests {
    use super::super::bucket::Entry;
    use super::super::key::{Kind, Packed};
    use super::*;

    fn mark(buckets: &mut Buckets, with: u64) {
        for bucket in buckets.iter_mut() {
            let packed = Packed {
                id: [with, !with],
                kind: Kind::Raw16,
            };
            bucket.set(2, Entry { packed, end: 1 });
        }
    }

    fn is_marked(buckets: &Buckets, with: u64) -> bool {
        buckets
            .iter()
            .all(|bucket| bucket.begin_with(with) & 4 != 0 && bucket.end(0) == 0)
    }

    #[test]
    fn blocks_of_all_sizes_are_vacant_and_do_not_overlap() {
        let mut held = Vec::new();
        for n in 0..2_000_u64 {
            let mut buckets = Buckets::new(1 << (n % 12).min(8));
            assert!(
                buckets
                    .iter()
                    .all(|bucket| (0..3).all(|slot| bucket.end(slot) == 0))
            );
            assert_eq!(buckets.len(), buckets.iter().len());
            buckets.prefetch(buckets.len() - 1);
            mark(&mut buckets, n);
            held.push((n, buckets));
            if n % 3 == 0 {
                let at = (n.wrapping_mul(0x9e37_79b9) % held.len() as u64) as usize;
                let (with, buckets) = held.swap_remove(at);
                assert!(is_marked(&buckets, with));
            }
            if n % 100 == 0 {
                tend();
            }
        }
        assert!(held.iter().all(|(n, buckets)| is_marked(buckets, *n)));
    }

    #[test]
    fn memory_is_shared_between_threads_and_comes_back() {
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    for round in 0..50 {
                        let mut held: Vec<_> =
                            (0..40).map(|_| Buckets::new(BLOCK_BUCKETS)).collect();
                        for (n, buckets) in held.iter_mut().enumerate() {
                            mark(buckets, thread << 32 | round << 16 | n as u64);
                        }
                        tend();
                        for (n, buckets) in held.iter().enumerate() {
                            assert!(is_marked(buckets, thread << 32 | round << 16 | n as u64));
                        }
                    }
                });
            }
        });
    }
}
