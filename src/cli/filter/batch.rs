//! A batch: consecutive lines of one input and the keys found in them, which travel together
//! from the reading thread to the dedup and from there to the output.
//!
//! A batch is bounded by lines and by key bytes, so that its request fits a server's line
//! limit; only a single key that is longer than the bound stands alone in a larger one.

use std::sync::Arc;

/// The most lines, hence keys, of a batch.
const LINES_MAX: usize = 1_000;

/// The most key bytes of a batch: a quarter of the 256 KiB a request should stay within,
/// because a quoted byte takes up to four (`\xHH`).
const KEY_BYTES_MAX: usize = 64 << 10;

/// Lines of one input in their order, with their keys.
#[derive(Debug)]
pub(super) struct Batch {
    /// The name of the input, for messages.
    pub(super) input: Arc<str>,
    /// The number of the first line within its input, counted from 1.
    pub(super) first_line: u64,
    /// The lines, line ends included.
    pub(super) lines: Spans,
    /// The keys of those lines that have one.
    pub(super) keys: Spans,
    /// For each line, whether a key of `keys` belongs to it, and what if none does.
    pub(super) kinds: Vec<Key<()>>,
    /// The lines' numbers, where they are not consecutive.
    numbers: Vec<u64>,
}

/// A line's key, or why it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<K> {
    Is(K),
    /// None was found.
    None,
    /// It is not asked for one: the line passes.
    NotAsked,
}

impl Batch {
    /// A batch that will start at `first_line` of `input`.
    pub(super) fn new(input: Arc<str>, first_line: u64) -> Self {
        Self {
            input,
            first_line,
            lines: Spans::default(),
            keys: Spans::default(),
            kinds: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Empties the batch and keeps its memory.
    pub(super) fn restart(&mut self, input: &Arc<str>, first_line: u64) {
        self.input = Arc::clone(input);
        self.first_line = first_line;
        self.lines.clear();
        self.keys.clear();
        self.kinds.clear();
        self.numbers.clear();
    }

    /// Whether a line with a key of so many bytes stays within the bounds.
    pub(super) fn has_room(&self, key_bytes: usize) -> bool {
        self.lines.is_empty()
            || self.lines.len() < LINES_MAX
                && self.keys.bytes.len().saturating_add(key_bytes) <= KEY_BYTES_MAX
    }

    /// Appends a line.
    pub(super) fn push(&mut self, line: &[u8], key: Key<&[u8]>) {
        self.lines.push(line);
        self.kinds.push(match key {
            Key::Is(key) => {
                self.keys.push(key);
                Key::Is(())
            }
            Key::None => Key::None,
            Key::NotAsked => Key::NotAsked,
        });
    }

    /// Appends a line with a key that does not follow the one before it.
    pub(super) fn push_apart(&mut self, number: u64, line: &[u8], key: &[u8]) {
        self.push(line, Key::Is(key));
        self.numbers.push(number);
    }

    /// The number of the line at this position.
    pub(super) fn number_of(&self, position: usize) -> u64 {
        let apart = self.numbers.get(position).copied();
        apart.unwrap_or(self.first_line + position as u64)
    }

    /// The line that starts the batch and the one that ends it, for messages.
    pub(super) fn place(&self) -> String {
        let last_line = self.number_of(self.lines.len().saturating_sub(1));
        if last_line == self.first_line {
            return format!("line {last_line} of {}", self.input);
        }
        format!("lines {} to {last_line} of {}", self.first_line, self.input)
    }
}

/// Byte strings laid end to end: one allocation for all of them.
#[derive(Debug, Default)]
pub(super) struct Spans {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Spans {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all strings together.
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, span: &[u8]) {
        self.bytes.extend_from_slice(span);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let span = &self.bytes[start..end];
            start = end;
            span
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_says_where_it_comes_from() {
        let mut batch = Batch::new("log".into(), 10);
        batch.push(b"a\n", Key::Is(b"a"));
        batch.push(b"\n", Key::None);
        batch.push(b"b\n", Key::Is(b"b"));
        assert_eq!(batch.keys.iter().collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(batch.lines.iter().nth(1), Some(&b"\n"[..]));
        assert_eq!(batch.place(), "lines 10 to 12 of log");
    }

    #[test]
    fn a_batch_is_bounded_but_takes_one_line_of_any_size() {
        let mut batch = Batch::new("log".into(), 1);
        assert!(batch.has_room(KEY_BYTES_MAX + 1));
        batch.push(b"\n", Key::None);
        assert!(batch.has_room(KEY_BYTES_MAX));
        assert!(!batch.has_room(KEY_BYTES_MAX + 1));
        for _ in 1..LINES_MAX {
            assert!(batch.has_room(0));
            batch.push(b"\n", Key::None);
        }
        assert!(!batch.has_room(0));
    }
}
