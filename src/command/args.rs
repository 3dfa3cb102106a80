//! The words of one request, wherever they lie: nothing is copied to look at them.
//!
//! A word is a span of the read buffer, or, when it was quoted with escapes, of the decoder's
//! scratch buffer. Both are reused from request to request.

/// One word: where it starts and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

/// Set in `start` of a word that lies in the scratch buffer.
const IN_SCRATCH: u32 = 1 << 31;

impl Span {
    /// A word in the read buffer.
    pub fn input(start: usize, len: usize) -> Self {
        Self {
            start: start as u32,
            len: len as u32,
        }
    }

    /// Bytes of the word.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.len as usize
    }

    /// A word in the scratch buffer.
    pub fn scratch(start: usize, len: usize) -> Self {
        Self {
            start: start as u32 | IN_SCRATCH,
            len: len as u32,
        }
    }
}

/// A request's words: the verb, and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    input: &'a [u8],
    scratch: &'a [u8],
    spans: &'a [Span],
    /// What came behind the line, if it announced something.
    body: Option<Span>,
}

impl<'a> Args<'a> {
    /// Words as spans over the two buffers; the first is the verb, so there is at least one.
    pub fn new(input: &'a [u8], scratch: &'a [u8], spans: &'a [Span]) -> Self {
        debug_assert!(!spans.is_empty(), "a request has a verb");
        Self {
            input,
            scratch,
            spans,
            body: None,
        }
    }

    /// The same with a body that came behind them.
    #[must_use]
    pub fn with_body(self, body: Span) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    /// The body, if one came behind the words.
    pub fn body(&self) -> Option<&'a [u8]> {
        let body = self.body?;
        Some(resolve(self.input, self.scratch, body))
    }

    /// How many words follow the verb.
    pub fn len(&self) -> usize {
        self.spans.len() - 1
    }

    /// Whether the verb stands alone.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first word.
    pub fn verb(&self) -> &'a [u8] {
        self.word(0)
    }

    /// The word behind the verb with this number, from 0; the caller knows that it is there.
    pub fn get(&self, i: usize) -> &'a [u8] {
        self.word(i + 1)
    }

    /// That word, if there is one.
    pub fn find(&self, i: usize) -> Option<&'a [u8]> {
        (i < self.len()).then(|| self.get(i))
    }

    /// The words from number `from` on.
    pub fn rest(&self, from: usize) -> Words<'a> {
        let (_, spans) = self.spans.split_at((from + 1).min(self.spans.len()));
        Words {
            input: self.input,
            scratch: self.scratch,
            spans,
        }
    }

    /// The request without its verb: its first word takes the verb's place. For containers such as `NS SET`.
    pub fn shift(&self) -> Option<Self> {
        (self.spans.len() > 1).then(|| Self {
            spans: &self.spans[1..],
            ..*self
        })
    }

    fn word(&self, i: usize) -> &'a [u8] {
        resolve(self.input, self.scratch, self.spans[i])
    }
}

/// Some words in a row, such as the keys of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    input: &'a [u8],
    scratch: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Words<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The first ones, at most so many.
    #[must_use]
    pub fn first(self, count: usize) -> Self {
        Self {
            spans: &self.spans[..count.min(self.spans.len())],
            ..self
        }
    }

    /// Those behind the first ones, which are so many.
    #[must_use]
    pub fn behind(self, count: usize) -> Self {
        Self {
            spans: &self.spans[count.min(self.spans.len())..],
            ..self
        }
    }

    /// How many bytes each of them has, without looking at any.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.spans.iter().map(|span| span.len as usize)
    }

    /// The word of this number, from 0; the caller knows that it is there.
    #[inline]
    pub fn get(&self, i: usize) -> &'a [u8] {
        resolve(self.input, self.scratch, self.spans[i])
    }

    /// The words in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Self {
            input,
            scratch,
            spans,
        } = *self;
        spans.iter().map(move |&span| resolve(input, scratch, span))
    }
}

#[inline]
fn resolve<'a>(input: &'a [u8], scratch: &'a [u8], span: Span) -> &'a [u8] {
    let begins = span.start as usize;
    // What is marked as being in the scratch buffer begins behind the end of any input.
    match input.get(begins..begins + span.len as usize) {
        Some(word) => word,
        None => in_scratch(scratch, span),
    }
}

#[cold]
fn in_scratch(scratch: &[u8], span: Span) -> &[u8] {
    let begins = (span.start & !IN_SCRATCH) as usize;
    &scratch[begins..begins + span.len as usize]
}
