//! Numbered places in memory that never move.
//!
//! A place keeps its number for as long as it is used, so the table and the wheel can point
//! at it with 4 bytes. Growth adds one small chunk; nothing is ever copied.

/// Places numbered from 0, all filled with `T::default()` to begin with, made `CHUNK` at a time:
/// so few that a nearly empty shard stays small.
#[derive(Debug)]
pub(super) struct Slab<T, const CHUNK: usize> {
    chunks: Vec<Box<[T]>>,
}

impl<T, const CHUNK: usize> Default for Slab<T, CHUNK> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Default, const CHUNK: usize> Slab<T, CHUNK> {
    /// Bytes that one more chunk takes.
    pub(super) const CHUNK_BYTES: usize = CHUNK * size_of::<T>() + size_of::<Box<[T]>>();

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Adds a chunk of places.
    pub(super) fn grow(&mut self) {
        self.chunks.push((0..CHUNK).map(|_| T::default()).collect());
    }

    /// Bytes of all chunks.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * Self::CHUNK_BYTES
    }

    pub(super) fn get(&self, at: u32) -> &T {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    pub(super) fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }
}
