//! Where buckets live: blocks of 256 in huge pages that all shards share, smaller ones on the heap.
//!
//! A table of many keys is read at random, so with pages of 4 KiB nearly every look also misses the
//! processor's page cache (TLB), and in a virtual machine walks two page tables. Full blocks are
//! therefore cut out of aligned 2 MiB pages for which huge pages are asked for. On the machine of the
//! README's figures that is no large gain: `MSEEN` of 100 over 10 million keys took 0.20 µs of server
//! CPU per key with huge pages and 0.21 without (medians of three paired runs on a busy machine), and
//! while memory is used for the first time 0.24 against 0.20, since the system clears whole pages.
//! A server that has run through one window reuses its memory, so the former counts for more.
//! The pages are the process's, not a shard's: what one shard gives back, any other uses next,
//! and the lowest page with room is used first, so that the others become empty and can be
//! returned. [`tend`] keeps an empty page or two ready, since making one takes the system some
//! 100 µs for which a request would wait, and returns what is left over.
//!
//! This is the one place of the store with `unsafe` code: raw memory, and the prefetch
//! instruction. It hands out [`Buckets`], which own their memory and behave like a slice.

#![allow(
    unsafe_code,
    reason = "huge pages and prefetching; measured above, argued at each block"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use super::bucket::Bucket;

/// Buckets of a full block.
pub(super) const BLOCK_BUCKETS: usize = 1 << BLOCK_BITS;
const BLOCK_BITS: usize = 8;
const BLOCK_BYTES: usize = BLOCK_BUCKETS * size_of::<Bucket>();
const PAGE_BYTES: usize = 2 << 20;
const PAGE_BLOCKS: usize = PAGE_BYTES / BLOCK_BYTES;
/// Pages of address space that are asked for at a time.
const SPAN_PAGES: usize = 32;
/// Empty pages that are made ready at most, and returned at most, in one call of [`tend`].
const TENDED_MAX: usize = 16;

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
            let block = POOL.lock().take();
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

/// Makes pages ready for the blocks that may soon be wanted, at the rate at which they were wanted
/// since the last call, and returns empty ones to the system beyond that.
pub(super) fn tend() {
    let wanted = {
        let mut pool = POOL.lock();
        let opened = std::mem::take(&mut pool.opened);
        opened
            .max(usize::from(!pool.pages.is_empty()))
            .min(TENDED_MAX)
    };
    for _ in 0..TENDED_MAX {
        // The system's work is done without the lock: the page belongs to nobody meanwhile.
        let mut pool = POOL.lock();
        if pool.ready.len() < wanted {
            let page = pool.bare_page();
            drop(pool);
            populate(page);
            POOL.lock().ready.push(page);
        } else if pool.ready.len() > wanted
            && let Some(page) = pool.ready.pop()
        {
            drop(pool);
            return_memory(page);
            POOL.lock().bare.push(page);
        } else {
            return;
        }
    }
}

/// The process's pages. They are kept as addresses whose provenance was exposed when they were mapped.
struct Pool {
    /// Those that blocks are cut out of.
    pages: BTreeMap<usize, Page>,
    /// Those of them that have a free block.
    open: BTreeSet<usize>,
    /// Unused, with memory behind them.
    ready: Vec<usize>,
    /// Unused, without memory behind them.
    bare: Vec<usize>,
    /// How many came into use since [`tend`] looked.
    opened: usize,
}

/// Which blocks of a page are free.
struct Page {
    free: [u64; PAGE_BLOCKS / 64],
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    pages: BTreeMap::new(),
    open: BTreeSet::new(),
    ready: Vec::new(),
    bare: Vec::new(),
    opened: 0,
});

impl Pool {
    fn take(&mut self) -> NonNull<u8> {
        let address = match self.open.first() {
            Some(&address) => address,
            None => self.open_page(),
        };
        let page = self.pages.get_mut(&address);
        let page = page.expect("an open page is a page in use");
        let block = page.take();
        if page.free.iter().all(|&word| word == 0) {
            self.open.remove(&address);
        }
        let block = ptr::with_exposed_provenance_mut(address + block * BLOCK_BYTES);
        NonNull::new(block).expect("no page lies at address 0")
    }

    fn give(&mut self, address: usize) {
        let page_address = address & !(PAGE_BYTES - 1);
        let page = self.pages.get_mut(&page_address);
        let page = page.expect("a block comes from a page in use");
        page.give((address - page_address) / BLOCK_BYTES);
        if page.free.iter().all(|&word| word == u64::MAX) {
            self.pages.remove(&page_address);
            self.open.remove(&page_address);
            self.ready.push(page_address);
        } else {
            self.open.insert(page_address);
        }
    }

    fn open_page(&mut self) -> usize {
        let address = self.ready.pop().unwrap_or_else(|| self.bare_page());
        let free = [u64::MAX; PAGE_BLOCKS / 64];
        self.pages.insert(address, Page { free });
        self.open.insert(address);
        self.opened += 1;
        address
    }

    fn bare_page(&mut self) -> usize {
        if self.bare.is_empty() {
            self.bare.extend(map_span());
        }
        self.bare.pop().expect("a span has pages")
    }
}

impl Page {
    fn take(&mut self) -> usize {
        let words = self.free.iter().enumerate();
        let (at, word) = words
            .map(|(at, &word)| (at, word))
            .find(|&(_, word)| word != 0)
            .expect("an open page has a free block");
        self.free[at] = word & (word - 1);
        at * 64 + word.trailing_zeros() as usize
    }

    fn give(&mut self, block: usize) {
        let bit = 1 << (block % 64);
        assert!(self.free[block / 64] & bit == 0, "a block is given once");
        self.free[block / 64] |= bit;
    }
}

/// The addresses of some new pages, the highest first.
fn map_span() -> impl Iterator<Item = usize> {
    // One page more than is used, so that the others can be aligned.
    let bytes = (SPAN_PAGES + 1) * PAGE_BYTES;
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
        handle_alloc_error(Layout::new::<[u8; PAGE_BYTES]>())
    };
    let first = mapped.expose_provenance().next_multiple_of(PAGE_BYTES);
    advise(first, SPAN_PAGES * PAGE_BYTES, HUGE);
    (0..SPAN_PAGES).rev().map(move |n| first + n * PAGE_BYTES)
}

#[cfg(target_os = "linux")]
const HUGE: Advice = Advice::LinuxHugepage;
#[cfg(not(target_os = "linux"))]
const HUGE: Advice = Advice::Normal;

/// Has the system put memory behind a page now; where it cannot, the first touch does.
fn populate(page: usize) {
    #[cfg(target_os = "linux")]
    advise(page, PAGE_BYTES, Advice::LinuxPopulateWrite);
    #[cfg(not(target_os = "linux"))]
    let _ = page;
}

/// Takes the memory from behind a page that no block is in; it reads as zeroes when it is touched again.
fn return_memory(page: usize) {
    #[cfg(target_os = "linux")]
    advise(page, PAGE_BYTES, Advice::LinuxDontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = page;
}

fn advise(address: usize, bytes: usize, advice: Advice) {
    // SAFETY (10): the range is our own mapping. Of the advice given here only `DontNeed` changes
    // what memory holds, and that is given for pages in which no block is in use.
    let advised = unsafe { madvise(ptr::with_exposed_provenance_mut(address), bytes, advice) };
    // A system without huge pages, or without this advice, is only slower.
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
