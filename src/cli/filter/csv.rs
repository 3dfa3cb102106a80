//! CSV: where a record ends, and one field of it (RFC 4180, as `csv-core` reads it).
//!
//! A record may hold line ends, delimiters and doubled quotes within quotes. Its bytes are kept as
//! they are; only the key is without its quotes. A record without a line end in quotes is a line.

use std::ops::ControlFlow;

use csv_core::{ReadFieldResult, ReadRecordResult, Reader, ReaderBuilder, Terminator};

fn reader(delimiter: u8) -> Reader {
    // `\r` is not left to the reader, so that each record ends behind its `\n`.
    ReaderBuilder::new()
        .delimiter(delimiter)
        .terminator(Terminator::Any(b'\n'))
        .build()
}

/// Finds the ends of records in bytes that come in pieces.
#[derive(Debug)]
pub(super) struct Ends {
    reader: Reader,
    at_start: bool,
    /// What the reader makes of the fields, which is of no interest here.
    fields: Box<[u8]>,
    places: [usize; 64],
}

impl Ends {
    pub(super) fn new(delimiter: u8) -> Self {
        Self {
            reader: reader(delimiter),
            at_start: true,
            fields: vec![0; 4 << 10].into(),
            places: [0; 64],
        }
    }

    /// Appends the places in these bytes, the next ones of an input, behind which records end.
    pub(super) fn find(&mut self, bytes: &[u8], ends: &mut Vec<usize>) {
        let mut at = 0;
        while at < bytes.len() {
            // The reader would take an empty line for a part of the next record.
            if self.at_start && bytes[at] == b'\n' {
                at += 1;
                ends.push(at);
                continue;
            }
            let (result, read, _, _) =
                self.reader
                    .read_record(&bytes[at..], &mut self.fields, &mut self.places);
            at += read;
            self.at_start = result == ReadRecordResult::Record;
            if self.at_start {
                ends.push(at);
            }
        }
    }
}

/// Which field of a record is the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Counted from 1.
    Number(usize),
    /// As the header has it.
    Name(String),
}

/// Finds one field of records that are given whole.
#[derive(Debug)]
pub(super) struct Csv {
    column: Column,
    has_header: bool,
    /// The column's position in this input, counted from 0, once it is known.
    position: Option<usize>,
    reader: Reader,
    record: Vec<u8>,
    field: Vec<u8>,
}

impl Csv {
    pub(super) fn new(delimiter: u8, column: Column, has_header: bool) -> Self {
        let mut made = Self {
            position: match &column {
                Column::Number(number) => Some(number - 1),
                Column::Name(_) => None,
            },
            column,
            has_header,
            reader: reader(delimiter),
            record: Vec::new(),
            field: Vec::new(),
        };
        made.start_anew();
        made
    }

    /// Whether the first record of each input names the columns.
    pub(super) fn has_header(&self) -> bool {
        self.has_header
    }

    /// Looks for the column in a header, given without its line end; an error says what is there.
    pub(super) fn read_header(&mut self, header: &[u8]) -> Result<(), String> {
        let Column::Name(name) = self.column.clone() else {
            return Ok(());
        };
        self.position = None;
        let mut names = Vec::new();
        let mut found = None;
        self.fields(header, |at, field| {
            if field == name.as_bytes() {
                found.get_or_insert(at);
            }
            names.push(String::from_utf8_lossy(field).into_owned());
            ControlFlow::Continue(())
        });
        self.position = found;
        match found {
            Some(_) => Ok(()),
            None => Err(format!(
                "no column is called '{name}'; there are: {}",
                names.join(", ")
            )),
        }
    }

    /// The field of a record, given without its line end, that is the key.
    pub(super) fn key(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let position = self.position?;
        let mut found = None;
        self.fields(record, |at, field| {
            if at < position {
                return ControlFlow::Continue(());
            }
            found = Some(field.to_vec());
            ControlFlow::Break(())
        });
        found
    }

    /// Hands the fields of a record to `each`, with their positions, until that wants no more.
    fn fields(&mut self, record: &[u8], mut each: impl FnMut(usize, &[u8]) -> ControlFlow<()>) {
        self.record.clear();
        self.record.extend_from_slice(record);
        self.record.push(b'\n');
        self.field.resize(self.record.len(), 0);
        let (mut position, mut read, mut len) = (0, 0, 0);
        loop {
            let (result, more_read, more) = self
                .reader
                .read_field(&self.record[read..], &mut self.field[len..]);
            read += more_read;
            len += more;
            // Nothing is left of an empty line, or of one whose quote is not closed.
            let is_last = !matches!(result, ReadFieldResult::Field { record_end: false });
            if each(position, &self.field[..len]).is_break() || is_last {
                self.start_anew();
                return;
            }
            (position, len) = (position + 1, 0);
        }
    }

    /// Readies the reader for another record, of which it takes no byte-order mark away: an input's own is gone when
    /// its records come here.
    fn start_anew(&mut self) {
        self.reader.reset();
        let _it_is_an_empty_line = self.reader.read_field(b"\n", &mut [0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a text that is read in pieces of so many bytes.
    fn records(text: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut ends = Ends::new(b',');
        let (mut records, mut record) = (Vec::new(), Vec::new());
        for piece in text.chunks(piece) {
            let (mut found, mut start) = (Vec::new(), 0);
            ends.find(piece, &mut found);
            for end in found {
                record.extend_from_slice(&piece[start..end]);
                records.push(std::mem::take(&mut record));
                start = end;
            }
            record.extend_from_slice(&piece[start..]);
        }
        if !record.is_empty() {
            records.push(record);
        }
        records
    }

    #[test]
    fn a_record_ends_where_a_line_ends_outside_of_quotes() {
        let long = format!("\"{}\n\",1\n", "x".repeat(9_000));
        let many = format!("{}\n", "f,".repeat(200));
        let want: [&[u8]; 8] = [
            b"a,b\r\n",
            b"\n",
            b"\"x\ny\",\"\"\"\n\"\n",
            b"\r\n",
            b"a\"b\n",
            long.as_bytes(),
            many.as_bytes(),
            b"last",
        ];
        let text = want.concat();
        for piece in [1, 2, 3, 7, 100, text.len()] {
            assert_eq!(records(&text, piece), want, "in pieces of {piece}");
        }
    }

    fn key(csv: &mut Csv, record: &[u8]) -> Option<String> {
        csv.key(record).map(|key| key.escape_ascii().to_string())
    }

    #[test]
    fn a_field_is_told_without_its_quotes() {
        let mut csv = Csv::new(b',', Column::Number(1), false);
        for (record, want) in [
            (&b"\"Smith, John\",1"[..], Some("Smith, John")),
            (b"\"Smith, Jane\",2", Some("Smith, Jane")),
            (b"plain,1", Some("plain")),
            (b"\"a\"\"b\nc\"", Some("a\\\"b\\nc")),
            (b"\"never closed,1", Some("never closed,1\\n")),
            (b"\xff\0,1", Some("\\xff\\x00")),
            (b"", Some("")),
            (b",x", Some("")),
        ] {
            assert_eq!(key(&mut csv, record).as_deref(), want);
        }
        let mut second = Csv::new(b'\t', Column::Number(2), false);
        assert_eq!(key(&mut second, b"a\tb\tc").as_deref(), Some("b"));
        assert_eq!(key(&mut second, b"a,b"), None);
    }

    /// Whether a key had its first character depended on the line before.
    #[test]
    fn a_byte_order_mark_is_the_keys_own_wherever_it_stands() {
        let mut csv = Csv::new(b',', Column::Number(1), false);
        for before in [&b"a,b"[..], b"", b"\"never closed", b"a"] {
            assert_eq!(
                key(&mut csv, b"\xef\xbb\xbfx,1").as_deref(),
                Some("\\xef\\xbb\\xbfx")
            );
            csv.key(before);
        }
    }

    #[test]
    fn a_header_says_where_a_column_is() {
        let mut csv = Csv::new(b',', Column::Name("event id".to_owned()), true);
        csv.read_header(b"time,\"event id\",\"event id\"").unwrap();
        assert_eq!(key(&mut csv, b"1,2,3").as_deref(), Some("2"));
        csv.read_header(b"event id").unwrap();
        assert_eq!(key(&mut csv, b"1,2,3").as_deref(), Some("1"));
        assert_eq!(
            csv.read_header(b"time,id").unwrap_err(),
            "no column is called 'event id'; there are: time, id"
        );
    }
}
