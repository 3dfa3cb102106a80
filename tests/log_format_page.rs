//! log-format.md against the code: its example is read frame by frame, and its keys are packed.

#![allow(clippy::unwrap_used, reason = "test code: a panic is the report")]

#[path = "common/frames.rs"]
mod frames;

use onced::log::control::Control;
use onced::log::segment::{self, Begin, Position};
use onced::log::{frame, record};
use onced::store::Secret;
use onced::store::key::{LoggedKey, SECRET_BYTES};

const PAGE: &str = include_str!("../log-format.md");

/// The bytes that a dump by `xxd` shows.
fn dumped(text: &str) -> Vec<u8> {
    let rows = text
        .lines()
        .filter_map(|line| line.split_once(": ")?.1.split_once("  "));
    let digits: String = rows.map(|(hex, _)| hex.replace(' ', "")).collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn example() -> Vec<u8> {
    let (_, behind) = PAGE
        .split_once("`xxd 0000000001.log`:\n\n```text\n")
        .unwrap();
    dumped(behind.split_once("```").unwrap().0)
}

/// The first column of the table behind the example.
fn places() -> Vec<usize> {
    let (_, behind) = PAGE.split_once("| at | what |\n").unwrap();
    let rows = behind
        .lines()
        .filter_map(|row| row.strip_prefix("| 0x")?.split_once(' '));
    rows.map(|(place, _)| usize::from_str_radix(place, 16).unwrap())
        .collect()
}

#[test]
fn the_example_is_a_segment_of_what_its_table_says() {
    let bytes = example();
    let Begin::Segment(header) = segment::Header::of(&bytes) else {
        panic!("the header does not hold");
    };
    assert_eq!((header.number, header.created.0), (1, 1_795_467_680_614));
    assert!(header.secret.is_some());
    let mut frames = vec![0];
    let mut told = Vec::new();
    let found = frames::frames(&bytes);
    assert_eq!(found.last().map(|last| last.range.end), Some(bytes.len()));
    for header in found {
        let payload = header.payload;
        frames.push(header.range.start);
        if header.space == frame::CONTROL {
            told.push(match Control::of(payload).unwrap() {
                Control::Opened(opened) => {
                    let spaces = opened.spaces.iter().map(|space| space.name.as_str());
                    assert!(!opened.always_synced && opened.earlier.is_empty());
                    format!("opened {}", spaces.collect::<Vec<_>>().join(" "))
                }
                Control::Space(space) => format!(
                    "{} {} covered since {}",
                    space.id, space.name, space.covered_since.0
                ),
                Control::Synced(Position { segment, offset }) => {
                    format!("synced {segment} {offset:#x}")
                }
                Control::Closed => "closed".to_owned(),
                Control::Sealed => "sealed".to_owned(),
                Control::Dropped { .. } => panic!("nothing was dropped"),
            });
            continue;
        }
        let mut rest = payload;
        while let Some(record) = record::take(&mut rest) {
            let mut key = Vec::new();
            record.key.write_to(&mut key);
            let content = record.content;
            let what = if content.is_some() { "is" } else { "is not" };
            let print = content.and_then(|content| content.fingerprint);
            let print = print.map_or(String::new(), |print| {
                format!(" {} {:x}", print.digits, print.value)
            });
            told.push(format!(
                "{} {} {what} {:#x}{print}",
                header.space,
                key.escape_ascii(),
                record.deadline.0
            ));
        }
        assert!(rest.is_empty());
    }
    // One row of the table is about a part of a frame, another about its payload.
    let places: Vec<_> = places()
        .into_iter()
        .filter(|place| ![0x74, 0xb2].contains(place))
        .collect();
    assert_eq!(places, frames);
    assert_eq!(
        told,
        [
            "opened default",
            "2 payments covered since 1795467680610",
            "2 payments covered since 0",
            "1 order-17 is 0x1a20f5cf969",
            "2 123e4567-e89b-12d3-a456-426614174000 is 0x1a20a6d8be9 4 5f3a",
            "1 order-17 is not 0x1a20f5cf969",
            "1 order-17 is 0x1a20a6d8be9",
            "1 order-17 is not 0x1a20a6d8be9",
            "synced 1 0x251",
            "closed",
        ]
    );
}

#[test]
fn keys_are_packed_as_the_table_says() {
    let (_, behind) = PAGE.split_once("<!-- keys -->\n").unwrap();
    let (table, _) = behind.split_once("<!-- /keys -->").unwrap();
    let secret = Secret::new([7; SECRET_BYTES]);
    let hex = |bytes: &[u8]| {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<String>()
    };
    let mut forms = Vec::new();
    for row in table.lines().skip(2) {
        let cells: Vec<_> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let (form, bytes) = match secret.key(cells[1].as_bytes()).logged() {
            LoggedKey::Packed { form, id } => (form, hex(&id)),
            LoggedKey::Bytes(bytes) => {
                let len = bytes.len() as u32;
                (7, hex(&len.to_le_bytes()) + &hex(bytes))
            }
        };
        assert_eq!(
            (cells[2], cells[3]),
            (&*form.to_string(), &*bytes),
            "{}",
            cells[1]
        );
        forms.push(form);
    }
    assert_eq!(forms, [0, 0, 0, 1, 2, 3, 4, 5, 7]);
}
