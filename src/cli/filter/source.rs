//! Reading: a thread that cuts the inputs into batches of lines with their keys.
//!
//! Bytes pass through as they are. A line ends behind its `\n`, or where its [`Framing`] says;
//! what follows the last end of an input is a line too. The header of CSV passes once. Whatever a read returned is handed over before the next read, which
//! may block: a batch never waits for input, so `tail -f` is answered at once. Nothing here
//! knows what was seen before.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{anyhow, bail};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use memchr::memchr_iter;

use super::batch::{Batch, Key};
use super::csv::Ends;
use super::key::KeyRule;
use crate::cli::input::{Input, text, without_mark};

/// How much is asked for in one read; the buffer grows only for a longer line.
const READ_BYTES: usize = 256 << 10;

/// The longest line, so that a file without line ends is an error, not a memory failure.
const LINE_BYTES_MAX: usize = 1 << 30;

/// Batches read ahead of the dedup.
const BATCHES_AHEAD: usize = 8;

/// What is to be read, checked before anything is.
#[derive(Debug)]
pub(super) struct Inputs {
    inputs: Vec<Input>,
    /// The bytes of all inputs together, if all are regular files.
    pub(super) bytes_total: Option<u64>,
}

impl Inputs {
    /// Finds the files; none, or `-`, is standard input. A file that is missing or cannot be
    /// read is an error here, before the first line is written.
    pub(super) fn find(files: &[PathBuf]) -> anyhow::Result<Self> {
        let inputs = match files {
            [] => vec![Input::Stdin],
            files => files.iter().map(|path| Input::named(path)).collect(),
        };
        let sizes = inputs
            .iter()
            .map(Input::size)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            inputs,
            bytes_total: sizes.into_iter().sum(),
        })
    }

    /// Starts reading. An error is the last thing received; the thread ends when its receiver
    /// is dropped, at the latest with the process if it is blocked in a read.
    pub(super) fn read(self, framing: Framing, rule: KeyRule) -> Batches {
        let (full, full_receiver) = bounded(BATCHES_AHEAD);
        let (spent_sender, spent) = unbounded();
        thread::spawn(move || {
            let mut cutter = Cutter::new(framing, rule, full, spent);
            for input in &self.inputs {
                match input.open().and_then(|file| cutter.cut(input, file)) {
                    Ok(Flow::GoOn) => {}
                    Ok(Flow::Stop) => return,
                    Err(err) => {
                        // A receiver that is gone wants no errors either.
                        let _ = cutter.full.send(Err(err));
                        return;
                    }
                }
            }
        });
        Batches {
            full: full_receiver,
            spent: spent_sender,
        }
    }
}

/// The receiving end of the reading thread.
#[derive(Debug)]
pub(super) struct Batches {
    /// Batches in the order of their lines.
    pub(super) full: Receiver<anyhow::Result<Batch>>,
    /// Takes batches back, for their memory.
    pub(super) spent: Sender<Batch>,
}

/// Whether anyone still wants batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    GoOn,
    Stop,
}

/// What makes bytes into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// A line end, `\n` or `\r\n`.
    Lines,
    /// A NUL byte; all others are of the line.
    Nul,
    /// A line end outside of quotes.
    Csv { delimiter: u8 },
}

impl Framing {
    /// The byte behind each line.
    pub(super) fn line_end(self) -> u8 {
        match self {
            Self::Nul => 0,
            Self::Lines | Self::Csv { .. } => b'\n',
        }
    }

    /// What of a line is read for its key.
    fn text(self, line: &[u8], is_first: bool) -> &[u8] {
        match self {
            Self::Nul => line.strip_suffix(b"\0").unwrap_or(line),
            Self::Lines | Self::Csv { .. } if is_first => without_mark(text(line)),
            Self::Lines | Self::Csv { .. } => text(line),
        }
    }
}

/// Cuts bytes into lines and lines into batches.
struct Cutter {
    framing: Framing,
    rule: KeyRule,
    /// The first header, which passes; those of later inputs that equal it do not.
    header: Option<Vec<u8>>,
    /// The next line is the first of its input.
    is_first: bool,
    batch: Batch,
    full: Sender<anyhow::Result<Batch>>,
    spent: Receiver<Batch>,
}

impl Cutter {
    fn new(
        framing: Framing,
        rule: KeyRule,
        full: Sender<anyhow::Result<Batch>>,
        spent: Receiver<Batch>,
    ) -> Self {
        Self {
            framing,
            rule,
            header: None,
            is_first: true,
            batch: Batch::new("".into(), 1),
            full,
            spent,
        }
    }

    /// Reads one input to its end.
    fn cut(&mut self, input: &Input, mut bytes: impl Read) -> anyhow::Result<Flow> {
        self.batch.restart(&input.name().into(), 1);
        self.is_first = true;
        let mut csv = match self.framing {
            Framing::Csv { delimiter } => Some(Ends::new(delimiter)),
            Framing::Lines | Framing::Nul => None,
        };
        // `buffer[..filled]` is the start of one line: no line end is in it.
        let mut buffer = vec![0; READ_BYTES];
        let mut filled = 0;
        let mut ends = Vec::new();
        loop {
            if filled == buffer.len() {
                self.grow(&mut buffer)?;
            }
            let count = match bytes.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(anyhow!("{}: {err}", input.cannot_read())),
            };
            let read = &buffer[filled..filled + count];
            ends.clear();
            match &mut csv {
                Some(csv) => csv.find(read, &mut ends),
                None => ends.extend(
                    memchr_iter(self.framing.line_end(), read).map(|position| position + 1),
                ),
            }
            let mut start = 0;
            for &end in &ends {
                let end = filled + end;
                if self.push(&buffer[start..end])? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
                start = end;
            }
            filled += count;
            buffer.copy_within(start..filled, 0);
            filled -= start;
            if self.hand_over() == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        let rest = &buffer[..filled];
        if csv.is_some() && rest.contains(&b'\n') {
            let (line, name) = (self.batch.first_line, &self.batch.input);
            bail!("line {line} of {name}: its quote is never closed");
        }
        if !rest.is_empty() && self.push(rest)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        Ok(self.hand_over())
    }

    /// Appends a line, with its line end if it has one.
    fn push(&mut self, line: &[u8]) -> anyhow::Result<Flow> {
        let is_first = std::mem::take(&mut self.is_first);
        let text = self.framing.text(line, is_first);
        if is_first && self.rule.has_header() {
            if text.is_empty() {
                // An empty line in front is none.
                self.is_first = true;
                self.batch.push(line, Key::NotAsked);
                return Ok(Flow::GoOn);
            }
            return self.push_header(line, text.to_vec());
        }
        let key = self.rule.key(text);
        let key_bytes = key.as_ref().map_or(0, |key| key.len());
        if !self.batch.has_room(key_bytes) && self.hand_over() == Flow::Stop {
            return Ok(Flow::Stop);
        }
        self.batch
            .push(line, key.as_deref().map_or(Key::None, Key::Is));
        Ok(Flow::GoOn)
    }

    /// Appends a header, unless there was one like it.
    fn push_header(&mut self, line: &[u8], text: Vec<u8>) -> anyhow::Result<Flow> {
        if let Err(problem) = self.rule.read_header(&text) {
            bail!("{}: {problem}", self.batch.input);
        }
        if self.header.as_ref() == Some(&text) {
            self.batch.first_line += 1;
        } else {
            self.batch.push(line, Key::NotAsked);
            self.header.get_or_insert(text);
        }
        Ok(Flow::GoOn)
    }

    /// Sends the batch, if there is anything in it, and starts the next one behind it.
    fn hand_over(&mut self) -> Flow {
        if self.batch.lines.is_empty() {
            return Flow::GoOn;
        }
        let next_line = self.batch.first_line + self.batch.lines.len() as u64;
        let input = Arc::clone(&self.batch.input);
        let next = match self.spent.try_recv() {
            Ok(mut used) => {
                used.restart(&input, next_line);
                used
            }
            Err(_) => Batch::new(input, next_line),
        };
        let full = std::mem::replace(&mut self.batch, next);
        match self.full.send(Ok(full)) {
            Ok(()) => Flow::GoOn,
            Err(_) => Flow::Stop,
        }
    }

    fn grow(&self, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
        if buffer.len() >= LINE_BYTES_MAX {
            bail!(
                "line {} of {} is longer than {} MiB: is this a text file?",
                self.batch.first_line,
                self.batch.input,
                LINE_BYTES_MAX >> 20
            );
        }
        buffer.resize(buffer.len() * 2, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out its pieces one read at a time.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    type Strings = Vec<Vec<u8>>;

    /// Each batch as (first line, lines, keys), by whole lines.
    fn cut(bytes: impl Read) -> Vec<(u64, Strings, Strings)> {
        let (full, batches) = bounded(1_000);
        let rule = KeyRule::WholeLine { if_empty: b"\n" };
        let mut cutter = Cutter::new(Framing::Lines, rule, full, unbounded().1);
        assert_eq!(cutter.cut(&Input::Stdin, bytes).unwrap(), Flow::GoOn);
        drop(cutter);
        batches
            .iter()
            .map(Result::unwrap)
            .map(|batch| {
                let lines = batch.lines.iter().map(<[u8]>::to_vec).collect();
                let keys = batch.keys.iter().map(<[u8]>::to_vec).collect();
                (batch.first_line, lines, keys)
            })
            .collect()
    }

    #[test]
    fn lines_keep_their_bytes_and_keys_lack_the_line_end() {
        let batches = cut(Pieces(vec![b"a\r\n\n\0\xff\nlast"]));
        assert_eq!(
            batches,
            [
                (
                    1,
                    vec![b"a\r\n".to_vec(), b"\n".to_vec(), b"\0\xff\n".to_vec()],
                    vec![b"a".to_vec(), b"\n".to_vec(), b"\0\xff".to_vec()],
                ),
                (4, vec![b"last".to_vec()], vec![b"last".to_vec()]),
            ]
        );
    }

    #[test]
    fn a_line_may_arrive_in_pieces_and_is_handed_over_when_it_ends() {
        let batches = cut(Pieces(vec![b"a\nb", b"b", b"\nc\n", b"d\n"]));
        let lines: Vec<_> = batches
            .into_iter()
            .map(|(at, lines, _)| (at, lines))
            .collect();
        assert_eq!(
            lines,
            [
                (1, vec![b"a\n".to_vec()]),
                (2, vec![b"bb\n".to_vec(), b"c\n".to_vec()]),
                (4, vec![b"d\n".to_vec()]),
            ]
        );
        assert!(cut(Pieces(vec![])).is_empty());
    }

    #[test]
    fn a_line_longer_than_the_buffer_stays_whole() {
        let mut text = vec![b'x'; 3 * READ_BYTES + 7];
        text.extend_from_slice(b"\ny\n");
        let batches = cut(&text[..]);
        let lines: Vec<_> = batches
            .into_iter()
            .flat_map(|(_, lines, _)| lines)
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines.concat(), text);
    }
}
