//! The subcommands that work on a data directory without its server, and the loading of keys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/frames.rs"]
mod frames;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use common::TestServer;
use onced::log::control::Space;
use onced::log::disk::{self, Disk};
use onced::log::frame;
use onced::log::mend::{end_in_order, leave_losses_out};
use onced::log::reader::{Findings, LogError, Present, Reader};
use onced::log::record::{self, Content};
use onced::log::segment::HEADER_BYTES;
use onced::log::storage::{File, Note, Storage};
use onced::log::writer::{Emptied, Fsync, Log, LogConfig, Start};
use onced::store::{Fingerprint, Secret};
use onced::time::Millis;

const BOOT: [u8; 16] = [9; 16];
const HOUR_MS: u64 = 3_600_000;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("onced-log-tools-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _there_may_be_none = fs::remove_dir_all(&path);
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _there_may_be_none = fs::remove_dir_all(&self.0);
    }
}

fn now() -> Millis {
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Millis(unix.as_millis() as u64)
}

/// The machine's run, as the subcommands find it.
fn boot() -> [u8; 16] {
    disk::boot_id([0; 16])
}

fn space(name: &str) -> Space {
    Space {
        id: 0,
        name: name.to_owned(),
        keeps_digests: false,
        ttl_ms: HOUR_MS,
        ttl_max_ms: 24 * HOUR_MS,
        slides: false,
        keys_max: 0,
        evicts: false,
        reports_unsure: false,
        covered_since: Millis(5),
        unsure_until: Millis(0),
        set: None,
    }
}

/// A log being written to a real directory.
struct Writing {
    log: Log,
    secret: Secret,
}

impl Writing {
    fn start(path: &Path, boot: [u8; 16]) -> Self {
        Self::go_on(
            path,
            boot,
            Start {
                log: [3; 16],
                next_segment: 1,
                ..Start::default()
            },
        )
    }

    fn go_on(path: &Path, boot: [u8; 16], start: Start) -> Self {
        let config = LogConfig {
            fsync: Fsync::EverySec,
            segment_bytes: 64 << 10,
            frame_bytes_max: 16 << 10,
            boot,
            secrets: frames::secrets(u64::from(boot[0])),
        };
        let disk = Arc::new(Disk::take(path).unwrap());
        Self {
            log: Log::start(disk, config, start, now()).unwrap(),
            secret: Secret::new([7; 192]),
        }
    }

    fn space(&self, mut space: Space) -> u32 {
        assert!(self.log.append_space(&mut space));
        space.id
    }

    fn frame(&self, space: u32, last: Millis, payload: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        let begins = frame::begin(&mut bytes);
        payload(&mut bytes);
        frame::finish(&mut bytes, begins, space);
        assert!(self.log.promise(bytes.len()));
        self.log.append(&bytes, last);
        // Else the next one would be joined to it.
        self.log.write(now());
    }

    fn put(&self, space: u32, key: &[u8], deadline: Millis, content: &Content<'_>) {
        self.frame(space, deadline, |out| {
            record::push_put(out, &self.secret.key(key), deadline, content);
        });
    }

    fn mark(&self, space: u32, key: &[u8], deadline: Millis) {
        self.put(space, key, deadline, &Content::default());
    }

    fn remove(&self, space: u32, key: &[u8], until: Millis) {
        self.frame(space, until, |out| {
            record::push_removal(out, &self.secret.key(key), until);
        });
    }

    fn close(self) {
        self.log.close(now()).unwrap();
    }

    /// Stops as a killed process does.
    fn kill(self) {
        self.log.sync(now());
    }
}

/// A directory of several segments, of keys `key-0` to `key-{keys}`, stopped in order.
fn several_segments(scratch: &Scratch, keys: u32) {
    fill_segments(Writing::start(&scratch.0, boot()), keys);
}

fn fill_segments(writing: Writing, keys: u32) {
    let deadline = now().after(HOUR_MS);
    let orders = writing.space(space("orders"));
    for i in 0..keys {
        let key = format!("key-{i}-with-more-than-16-bytes");
        writing.mark(orders, key.as_bytes(), deadline);
    }
    writing.close();
}

fn onced(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _it_may_not_read = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// All that a start mends, though it begins a segment in between.
fn mend(storage: &dyn Storage, findings: &Findings) -> io::Result<()> {
    end_in_order(storage, findings)?;
    leave_losses_out(storage, findings, &frames::secrets(7)).map(drop)
}

/// Exit status, standard output, standard error.
fn run(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let output = onced(arguments, input);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn verify(scratch: &Scratch) -> (i32, serde_json::Value) {
    let (status, report, error) = run(&["log", "verify", scratch.text(), "--json"], b"");
    assert_eq!(error, "");
    (status, serde_json::from_str(&report).unwrap())
}

fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect()
}

fn segments(scratch: &Scratch) -> Vec<String> {
    let files = contents(&scratch.0).into_keys();
    files
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn findings(scratch: &Scratch, recovers: bool) -> Result<(Findings, usize), LogError> {
    let present = Present {
        now: now(),
        boot: boot(),
        recovers,
        is_copy: false,
    };
    let disk = Arc::new(Disk::look(&scratch.0).unwrap());
    let mut reader = Reader::open(disk, present)?;
    let mut records = 0;
    while let Some(piece) = reader.next_piece()? {
        for found in piece.frames() {
            let mut payload = found.payload;
            while found.space != frame::CONTROL && record::take(&mut payload).is_some() {
                records += 1;
            }
        }
    }
    Ok((reader.finish(), records))
}

#[test]
fn verify_counts_what_is_in_a_clean_log() {
    let scratch = Scratch::new("clean");
    let writing = Writing::start(&scratch.0, boot());
    let (orders, mails) = (
        writing.space(space("orders")),
        writing.space(space("mails")),
    );
    let (soon, past) = (now().after(HOUR_MS), Millis(now().0 - 1_000));
    writing.mark(orders, b"a", soon);
    writing.mark(orders, b"b", past);
    writing.remove(mails, b"c", soon);
    writing.close();

    let (status, report) = verify(&scratch);
    assert_eq!(status, 0, "{report}");
    for (name, value) in [
        ("clean", true.into()),
        ("closed", true.into()),
        ("records", 3.into()),
        ("live", 1.into()),
        ("damage", serde_json::json!([])),
        ("missing", serde_json::json!([])),
        ("tail", serde_json::Value::Null),
        ("namespaces", serde_json::json!(["orders", "mails"])),
    ] {
        assert_eq!(report[name], value, "{name} in {report}");
    }
    let segment = &report["segments"][0];
    assert_eq!(segment["name"], "0000000001.log");
    assert_eq!(
        (&segment["puts"], &segment["removals"]),
        (&2.into(), &1.into())
    );
    assert_eq!(segment["namespaces"], 2);
    assert_eq!(segment["last_deadline_ms"], soon.0);

    let (status, text, _) = run(&["log", "verify", scratch.text()], b"");
    assert_eq!(status, 0);
    assert!(
        text.contains("3 records (2 puts, 1 removals) of 2 namespaces, last deadline"),
        "{text}"
    );
    assert!(text.contains("(in 59m)"), "{text}");
    assert!(text.ends_with("in 2 namespaces\nclean\n"), "{text}");
}

#[test]
fn verify_tells_a_torn_tail_from_damage() {
    let scratch = Scratch::new("torn");
    let writing = Writing::start(&scratch.0, boot());
    let orders = writing.space(space("orders"));
    for i in 0..20 {
        writing.mark(orders, format!("key-{i}").as_bytes(), now().after(HOUR_MS));
    }
    writing.kill();
    let path = scratch.file("0000000001.log");
    let whole = fs::read(&path).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();

    // The last frame's last byte.
    flip(&path, end);
    let (status, report) = verify(&scratch);
    assert_eq!(status, 0, "{report}");
    assert_eq!(report["records"], 19);
    assert_eq!(report["tail"]["name"], "0000000001.log");
    assert!(report["tail"]["offset"].as_u64().unwrap() < end as u64);
    let (_, text, _) = run(&["log", "verify", scratch.text()], b"");
    assert!(text.contains("torn tail at byte"), "{text}");
    assert!(text.ends_with("clean but for the torn tail\n"), "{text}");

    // One in the middle, with whole frames behind it.
    fs::write(&path, &whole).unwrap();
    flip(&path, end - 200);
    let (status, report) = verify(&scratch);
    assert_eq!(status, 1, "{report}");
    assert_eq!(report["records"], 19);
    let damage = &report["damage"][0];
    let (offset, bytes) = (
        damage["offset"].as_u64().unwrap(),
        damage["bytes"].as_u64().unwrap(),
    );
    assert!(
        (offset..offset + bytes).contains(&(end as u64 - 200)),
        "{report}"
    );
    let next = (offset + bytes) as usize;
    assert!(
        frames::frames(&whole)
            .iter()
            .any(|found| found.range.start == next)
    );
    assert_eq!(damage["followed"], true);
    let (_, text, _) = run(&["log", "verify", scratch.text()], b"");
    assert!(
        text.contains(&format!(
            "damaged at byte {offset}, {bytes} bytes until the next whole frame"
        )),
        "{text}"
    );
}

#[test]
fn what_is_no_log_or_lacks_a_part_is_said_in_one_line() {
    let refused = |scratch: &Scratch, words: &str| {
        let (status, out, error) = run(&["log", "verify", scratch.text()], b"");
        assert_eq!(
            (status, &out[..], error.lines().count()),
            (2, "", 1),
            "{error}"
        );
        assert!(
            error.starts_with("onced: ") && error.contains(words),
            "{error}"
        );
    };
    let nowhere = Scratch::new("nowhere");
    refused(&nowhere, "cannot read the data directory");
    fs::create_dir_all(&nowhere.0).unwrap();
    refused(&nowhere, "is empty");
    fs::write(nowhere.file("letter.txt"), b"dear").unwrap();
    refused(&nowhere, "letter.txt");
    fs::write(
        nowhere.file("onced.lock"),
        b"onced data directory, format 3\n",
    )
    .unwrap();
    refused(&nowhere, "newer onced");

    let scratch = Scratch::new("wrong");
    several_segments(&scratch, 3_000);
    let names = segments(&scratch);
    assert!(names.len() >= 3, "{names:?}");
    fs::write(scratch.file("letter.txt"), b"dear").unwrap();
    refused(&scratch, "letter.txt does not belong to a log");
    fs::remove_file(scratch.file("letter.txt")).unwrap();

    // A segment of another log.
    let other = Scratch::new("other");
    Writing::go_on(
        &other.0,
        boot(),
        Start {
            log: [4; 16],
            next_segment: 99,
            ..Start::default()
        },
    )
    .close();
    let stray = "0000000099.log";
    fs::copy(other.file(stray), scratch.file(stray)).unwrap();
    refused(&scratch, "a mixture of two directories");
    // And of a newer version.
    let mut bytes = fs::read(other.file(stray)).unwrap();
    bytes[8] = 7;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    fs::write(scratch.file(stray), bytes).unwrap();
    refused(&scratch, "has format 7");
    fs::remove_file(scratch.file(stray)).unwrap();

    fs::remove_file(scratch.file(&names[1])).unwrap();
    let (status, text, error) = run(&["log", "verify", scratch.text()], b"");
    assert_eq!((status, &error[..]), (1, ""));
    assert!(text.contains(&format!("{}: missing", names[1])), "{text}");
}

/// A log in which everything happens that `dump` tells of.
fn eventful(scratch: &Scratch, deadline: Millis) {
    let writing = Writing::start(&scratch.0, boot());
    let gone = writing.space(space("gone"));
    writing.mark(gone, b"x", deadline);
    // Purged: another namespace takes its name.
    let purged = writing.space(space("orders"));
    writing.mark(purged, b"purged", deadline);
    let orders = writing.space(Space {
        slides: true,
        evicts: true,
        keys_max: 1_000,
        ..space("orders")
    });
    writing.mark(orders, b"order-17", deadline);
    writing.mark(orders, b"order-17", deadline.after(5));
    let fingerprint = Some(Fingerprint {
        value: 0xab,
        digits: 4,
    });
    let content = Content {
        fingerprint,
        value: None,
        record: None,
    };
    writing.put(orders, b"\xff\0", deadline, &content);
    let content = |value| Content {
        fingerprint: None,
        value: Some(value),
        record: None,
    };
    writing.put(
        orders,
        "\u{20ac} \"1\"\n".as_bytes(),
        deadline,
        &content(b"hello"),
    );
    writing.put(orders, b"binary", deadline, &content(b"\x80"));
    writing.mark(orders, b"removed", deadline);
    writing.remove(orders, b"removed", deadline);
    writing.mark(orders, b"lapsed", Millis(1_600_000_000_000));
    assert!(writing.log.append_dropped(gone, Millis(5)));
    writing.close();
}

const ORDERS: &str = r#"{"op":"namespace","namespace":"orders","ttl_ms":3600000,"ttl_max_ms":86400000,"mode":"slide","keys_max":1000,"full":"evict","keys":"exact","unsure":"new","covered_since_ms":5,"unsure_until_ms":0}"#;

#[test]
fn dump_prints_each_record_as_json_in_log_order() {
    let scratch = Scratch::new("dump");
    let deadline = now().after(HOUR_MS);
    let (at, later) = (deadline.0, deadline.0 + 5);
    eventful(&scratch, deadline);
    let dump = |options: &[&str]| {
        let (status, out, error) = run(&[&["log", "dump", scratch.text()], options].concat(), b"");
        assert_eq!((status, &error[..]), (0, ""));
        out
    };
    let in_the_middle = format!(
        r#"{{"op":"put","namespace":"orders","key":"order-17","deadline_ms":{later}}}
{{"op":"put","namespace":"orders","key_hex":"ff00","deadline_ms":{at},"fingerprint":"00ab"}}
{{"op":"put","namespace":"orders","key":"€ \"1\"\n","deadline_ms":{at},"value":"hello"}}
{{"op":"put","namespace":"orders","key":"binary","deadline_ms":{at},"value_hex":"80"}}
"#
    );
    let expected = format!(
        r#"{ORDERS}
{{"op":"put","namespace":"orders","key":"order-17","deadline_ms":{at}}}
{in_the_middle}{{"op":"put","namespace":"orders","key":"removed","deadline_ms":{at}}}
{{"op":"remove","namespace":"orders","key":"removed","deadline_ms":{at}}}
{{"op":"put","namespace":"orders","key":"lapsed","deadline_ms":1600000000000}}
"#
    );
    assert_eq!(dump(&[]), expected);
    assert_eq!(dump(&["--namespace", "orders"]), expected);
    assert_eq!(dump(&["--live"]), format!("{ORDERS}\n{in_the_middle}"));

    let all = dump(&["--all"]);
    let gone = format!(r#"{{"op":"put","namespace":"gone","key":"x","deadline_ms":{at}}}"#);
    assert!(all.contains(&gone), "{all}");
    assert!(
        all.ends_with("{\"op\":\"drop\",\"namespace\":\"gone\"}\n"),
        "{all}"
    );
    assert!(all.contains(r#""key":"purged""#), "{all}");
    let only_gone = dump(&["--all", "--namespace", "gone"]);
    assert_eq!(only_gone.lines().count(), 3, "{only_gone}");

    let (status, _, error) = run(&["log", "dump", scratch.text(), "--namespace", "no"], b"");
    assert_eq!(status, 2);
    assert!(error.ends_with("has no namespace 'no'\n"), "{error}");
}

#[test]
fn a_dump_whose_reader_has_enough_ends_quietly() {
    let scratch = Scratch::new("pipe");
    several_segments(&scratch, 5_000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(["log", "dump", scratch.text()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), &ended.stderr[..]),
        (Some(0), &b""[..])
    );
}

#[test]
fn a_damaged_dump_says_what_it_lacks() {
    let scratch = Scratch::new("lacking");
    several_segments(&scratch, 3_000);
    flip(&scratch.file("0000000002.log"), 10_000);
    let (status, out, error) = run(&["log", "dump", scratch.text(), "--live"], b"");
    assert_eq!((status, error.lines().count()), (1, 1), "{error}");
    assert!(
        error.contains("0000000002.log is damaged at byte"),
        "{error}"
    );
    assert_eq!(out.lines().count(), 1 + 3_000 - 1);
}

#[test]
fn repair_saves_what_is_whole_and_leaves_the_old_directory_alone() {
    let scratch = Scratch::new("broken");
    let new = Scratch::new("mended");
    several_segments(&scratch, 4_000);
    let names = segments(&scratch);
    assert!(names.len() >= 4, "{names:?}");
    let first_segment = {
        let bytes = fs::read(scratch.file(&names[0])).unwrap();
        let found = frames::frames(&bytes).into_iter();
        found.filter(|found| found.space != frame::CONTROL).count() as u64
    };
    // A header, two frames, and a whole segment.
    flip(&scratch.file(&names[0]), 20);
    flip(&scratch.file(&names[1]), 10_000);
    flip(&scratch.file(&names[1]), 20_000);
    fs::remove_file(scratch.file(&names[2])).unwrap();
    let before = contents(&scratch.0);
    let (status, report) = verify(&scratch);
    assert_eq!(status, 1);

    let arguments = ["log", "repair", scratch.text(), "--to", new.text()];
    let (status, text, error) = run(&arguments, b"");
    assert_eq!((status, &error[..]), (0, ""), "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("lost: "))
            .count(),
        3,
        "{text}"
    );
    assert!(text.contains(&format!("{} is missing", names[2])), "{text}");
    assert_eq!(contents(&scratch.0), before);

    let (status, mended) = verify(&new);
    assert_eq!(status, 0, "{mended}");
    assert_eq!(mended["tail"], serde_json::Value::Null);
    assert_eq!(
        mended["records"].as_u64().unwrap(),
        report["records"].as_u64().unwrap() + first_segment
    );
    assert_eq!(mended["closed"], true);
    // A start finds no damage, and knows that its memory begins now.
    let (found, _) = findings(&new, false).unwrap();
    let opened = found.newest.unwrap();
    assert_eq!(opened.spaces.len(), 1);
    assert!(opened.spaces[0].covered_since > Millis(now().0 - 60_000));
    Disk::take(&new.0).unwrap();

    let (status, _, error) = run(&arguments, b"");
    assert_eq!(status, 2);
    assert!(error.ends_with("is not an empty directory\n"), "{error}");
    let within = scratch.file("within");
    let within = [
        "log",
        "repair",
        scratch.text(),
        "--to",
        within.to_str().unwrap(),
    ];
    assert_eq!(run(&within, b"").0, 2);
    assert_eq!(contents(&scratch.0), before);
}

/// What it has written by then looks whole, and does not know what is missing.
#[test]
fn a_repair_that_was_cut_short_is_not_taken_for_a_data_directory() {
    let (scratch, new) = (Scratch::new("cut-short"), Scratch::new("cut-short-new"));
    several_segments(&scratch, 4_000);
    flip(&scratch.file(&segments(&scratch)[1]), 10_000);
    // A file may have 512 times 64 bytes, and a process that goes beyond that is ended.
    let repair = format!(
        "ulimit -f 64; exec {} log repair {} --to {}",
        env!("CARGO_BIN_EXE_onced"),
        scratch.text(),
        new.text()
    );
    let ended = Command::new("sh").args(["-c", &repair]).output().unwrap();
    assert!(!ended.status.success(), "{ended:?}");
    assert!(!segments(&new).is_empty());
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", new.text()][..],
        &["log", "verify", new.text()],
        &["log", "repair", scratch.text(), "--to", new.text()],
    ] {
        let (status, _, error) = run(arguments, b"");
        assert_eq!(
            (status, error.lines().count()),
            (2, 1),
            "{arguments:?}: {error}"
        );
    }
    let (_, _, error) = run(&["log", "verify", new.text()], b"");
    assert!(error.contains("remove it, and repair again"), "{error}");
}

#[test]
fn repair_of_a_clean_log_loses_nothing_and_says_so() {
    let scratch = Scratch::new("whole");
    let new = Scratch::new("copy");
    let deadline = now().after(HOUR_MS);
    eventful(&scratch, deadline);
    let arguments = ["log", "repair", scratch.text(), "--to", new.text()];
    let (status, text, _) = run(&arguments, b"");
    assert_eq!(status, 0);
    assert!(!text.contains("lost"), "{text}");
    let dump = |scratch: &Scratch| run(&["log", "dump", scratch.text()], b"").1;
    assert_eq!(dump(&scratch), dump(&new));
    let (found, _) = findings(&new, false).unwrap();
    assert_eq!(found.newest.unwrap().spaces[0].covered_since, Millis(5));
}

/// What stays of a namespace that is emptied comes before what says that it was.
#[test]
fn repair_keeps_what_a_purge_spared() {
    let scratch = Scratch::new("repair-purged");
    let to = Scratch::new("repair-purged-to");
    let deadline = now().after(HOUR_MS);
    let writing = Writing::start(&scratch.0, boot());
    let before = writing.space(space("orders"));
    writing.mark(before, b"went", deadline);
    let mut kept = Vec::new();
    let begins = frame::begin(&mut kept);
    let key = writing.secret.key(b"stayed");
    record::push_put(&mut kept, &key, deadline, &Content::default());
    frame::finish(&mut kept, begins, frame::CONTROL);
    assert!(writing.log.promise(kept.len()));
    let (mut purged, log) = (space("orders"), &writing.log);
    purged.id = log.keep_number().unwrap();
    assert!(purged.id > before && log.keep_number().is_none());
    assert!(log.append_staying(purged.id, &mut kept, deadline));
    assert_eq!(log.append_emptied(&purged, || {}), Emptied::Said);
    writing.close();
    let arguments = ["log", "repair", scratch.text(), "--to", to.text()];
    let (status, ..) = run(&arguments, b"");
    assert_eq!(status, 0);
    for directory in [&scratch, &to] {
        let (status, out, _) = run(&["log", "dump", "--live", directory.text()], b"");
        assert_eq!(status, 0);
        let keys: Vec<_> = out.lines().filter(|line| line.contains("key\":")).collect();
        assert!(keys.len() == 1 && keys[0].contains("stayed"), "{out}");
    }
}

/// A segment whose header had become zeros was taken for one that was about to be made, and removed. With its
/// secret goes what vouches for its frames: then nothing of it can be saved.
#[test]
fn a_header_of_zeros_before_frames_is_damage() {
    let (scratch, new) = (Scratch::new("zeros"), Scratch::new("zeros-new"));
    several_segments(&scratch, 100);
    let path = scratch.file("0000000001.log");
    let whole = fs::read(&path).unwrap();
    for (zeros, saved) in [(64, "100 records\n"), (HEADER_BYTES, "0 records\n")] {
        let mut bytes = whole.clone();
        bytes[..zeros].fill(0);
        fs::write(&path, bytes).unwrap();
        let found = findings(&scratch, false);
        assert!(matches!(found, Err(LogError::Damaged { offset: 0, .. })));
        let (status, text, _) = run(&["log", "verify", scratch.text()], b"");
        assert_eq!(status, 1);
        assert!(text.contains("damaged at byte 0, its header"), "{text}");
        let (status, text, _) = run(&["log", "repair", scratch.text(), "--to", new.text()], b"");
        assert_eq!(status, 0);
        assert!(text.ends_with(saved), "{text}");
        assert_eq!(verify(&new).0, 0);
        fs::remove_dir_all(&new.0).unwrap();
    }
}

/// An older segment under a newer name was replayed as if it had been written last: what was forgotten came
/// back, and a namespace that was made in between was gone.
#[test]
fn a_segment_under_another_name_is_refused_by_name() {
    let (scratch, new) = (Scratch::new("misplaced"), Scratch::new("misplaced-new"));
    several_segments(&scratch, 4_000);
    let names = segments(&scratch);
    let whole = contents(&scratch.0);
    let newest = names.last().unwrap();
    let beyond = "0000000099.log".to_owned();
    for (from, to, is_renamed) in [
        (&names[0], newest, false),
        (&names[0], &names[1], false),
        (newest, &names[0], false),
        (&names[1], &beyond, true),
    ] {
        fs::copy(scratch.file(from), scratch.file(to)).unwrap();
        if is_renamed {
            fs::remove_file(scratch.file(from)).unwrap();
        }
        let before = contents(&scratch.0);
        let recover = ["--recover"];
        for (arguments, more) in [
            (
                &["serve", "--listen", "127.0.0.1:0", "--data-dir"][..],
                &[][..],
            ),
            (
                &["serve", "--listen", "127.0.0.1:0", "--data-dir"],
                &recover,
            ),
            (&["log", "verify"], &[]),
            (&["log", "repair", "--to", new.text()], &[]),
            (&["log", "compact"], &[]),
        ] {
            let all = [arguments, &[scratch.text()], more].concat();
            let (status, _, error) = run(&all, b"");
            let number = from.trim_start_matches('0').trim_end_matches(".log");
            let words = format!("{to} is segment {number} under another name");
            assert!(status > 0 && error.contains(&words), "{all:?}: {error}");
            assert!(error.contains("Put the file back"), "{error}");
        }
        assert_eq!(contents(&scratch.0), before);
        assert!(!new.0.exists());
        for (path, bytes) in &whole {
            fs::write(path, bytes).unwrap();
        }
        let _it_is_not_there_each_time = fs::remove_file(scratch.file(&beyond));
    }
}

/// Nothing said that it had been there: 811 synced keys were gone, and `verify` found the log clean.
#[test]
fn a_newest_segment_that_is_gone_is_missed() {
    let scratch = Scratch::new("newest-gone");
    let writing = Writing::start(&scratch.0, boot());
    let orders = writing.space(space("orders"));
    for i in 0..2_500 {
        let key = format!("key-{i}-with-more-than-16-bytes");
        writing.mark(orders, key.as_bytes(), now().after(HOUR_MS));
    }
    writing.kill();
    let whole = contents(&scratch.0);
    let names = segments(&scratch);
    let newest = scratch.file(names.last().unwrap());
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        scratch.text(),
    ];
    let ways: [fn(&Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"").unwrap(),
        |path| fs::write(path, vec![0; 64 << 10]).unwrap(),
    ];
    for breaks in ways.into_iter().cycle().take(16) {
        breaks(&newest);
        let (status, _, error) = run(&serve, b"");
        let words = format!("{} is missing, or holds nothing", names.last().unwrap());
        assert!(status == 2 && error.contains(&words), "{error}");
        assert!(error.contains("--restored"), "{error}");
        let (status, report) = verify(&scratch);
        assert_eq!((status, &report["clean"]), (1, &false.into()), "{report}");
        assert_eq!(report["missing"][0], names.last().unwrap().as_str());
        for (path, bytes) in &whole {
            fs::write(path, bytes).unwrap();
        }
    }
    // Left out: the next number is not given twice, and what is missing is known.
    fs::remove_file(&newest).unwrap();
    assert!(matches!(
        findings(&scratch, false),
        Err(LogError::NewestMissing { .. })
    ));
    let (found, _) = findings(&scratch, true).unwrap();
    assert_eq!(found.missing, [names.last().unwrap().clone()]);
    assert_eq!(found.next_segment, names.len() as u64 + 1);
    let new = Scratch::new("newest-gone-new");
    let (status, text, _) = run(&["log", "repair", scratch.text(), "--to", new.text()], b"");
    assert!(status == 0 && text.contains("is missing"), "{text}");
    let (repaired, _) = findings(&new, false).unwrap();
    let spaces = repaired.newest.unwrap().spaces;
    assert!(spaces[0].covered_since > Millis(now().0 - 60_000));
    let last = segments(&new).pop().unwrap();
    fs::remove_file(new.file(&last)).unwrap();
    assert!(matches!(
        findings(&new, false),
        Err(LogError::NewestMissing { .. })
    ));
    // A directory of an earlier version has no such note.
    let lock = scratch.file("onced.lock");
    fs::write(&lock, "onced data directory, format 1\n").unwrap();
    findings(&scratch, false).unwrap();
    assert_eq!(segments(&scratch).len(), names.len() - 1);
}

/// The newest of the others is copied over by one of another log, whose header is as whole.
#[test]
fn a_segment_of_another_log_is_refused_by_repair_too() {
    let (scratch, new) = (Scratch::new("mixed"), Scratch::new("mixed-new"));
    several_segments(&scratch, 4_000);
    let names = segments(&scratch);
    let other = Scratch::new("mixed-other");
    let start = Start {
        log: [4; 16],
        next_segment: 2,
        ..Start::default()
    };
    Writing::go_on(&other.0, boot(), start).close();
    fs::copy(other.file(&names[1]), scratch.file(&names[1])).unwrap();
    let repair = ["log", "repair", scratch.text(), "--to", new.text()];
    let (status, _, error) = run(&repair, b"");
    assert_eq!(status, 2);
    assert!(error.contains("is of another log than"), "{error}");
    assert!(!new.0.exists());
}

#[test]
fn what_is_mended_is_read_without_damage_and_as_before() {
    let scratch = Scratch::new("mend");
    several_segments(&scratch, 4_000);
    let names = segments(&scratch);
    let path = |i: usize| scratch.file(&names[i]);
    flip(&path(0), 20);
    flip(&path(1), 10_000);
    flip(&path(1), 20_000);
    flip(&path(2), fs::read(path(2)).unwrap().len() - 1);
    let last = names.len() - 1;
    let mut bytes = fs::read(path(last)).unwrap();
    let end = bytes.len();
    bytes.extend_from_slice(b"half a frame");
    fs::write(path(last), bytes).unwrap();
    fs::write(scratch.file("0000000001.log.tmp"), b"left over").unwrap();
    assert!(matches!(
        findings(&scratch, false),
        Err(LogError::Damaged { .. })
    ));

    let (found, records) = findings(&scratch, true).unwrap();
    assert_eq!(found.losses.len(), 4);
    mend(&Disk::take(&scratch.0).unwrap(), &found).unwrap();
    assert_eq!(fs::read(path(last)).unwrap().len(), end);
    // The first one is gone as a whole, which is for the next segment to say.
    let (again, same_records) = findings(&scratch, true).unwrap();
    assert_eq!(
        (again.losses, again.tail, again.unused),
        (vec![], None, vec![])
    );
    assert_eq!(again.missing, [names[0].clone()]);
    assert_eq!(same_records, records);
    assert!(again.was_closed);
}

#[test]
fn a_torn_tail_is_mended_without_recovery() {
    let scratch = Scratch::new("mend-tail");
    let writing = Writing::start(&scratch.0, BOOT);
    let orders = writing.space(space("orders"));
    for i in 0..10 {
        writing.mark(orders, format!("key-{i}").as_bytes(), now().after(HOUR_MS));
    }
    writing.kill();
    let path = scratch.file("0000000001.log");
    let end = fs::read(&path)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap();
    flip(&path, end - 100);
    // The machine was started again since: what the disk had not written in order was not promised.
    let (found, records) = findings(&scratch, false).unwrap();
    assert!(records < 10 && found.tail.is_some(), "{found:?}");
    mend(&Disk::take(&scratch.0).unwrap(), &found).unwrap();
    let (again, same_records) = findings(&scratch, false).unwrap();
    assert_eq!((again.tail, same_records), (None, records));
}

/// Numbers that look random, the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}

/// Breaks some of a directory's files.
fn break_some(scratch: &Scratch, numbers: &mut Numbers) {
    let names = segments(scratch);
    for _ in 0..=numbers.below(4) {
        let path = scratch.file(&names[numbers.below(names.len())]);
        let Ok(mut bytes) = fs::read(&path) else {
            continue;
        };
        let at = numbers.below(bytes.len().max(1));
        match numbers.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&[at as u8; 100]),
            2 => bytes
                .iter_mut()
                .skip(at)
                .take(4_096)
                .for_each(|byte| *byte = 0),
            3 if names.len() > 1 => {
                fs::remove_file(&path).unwrap();
                continue;
            }
            4 => bytes.iter_mut().take(32).for_each(|byte| *byte ^= 3),
            _ => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 4),
        }
        fs::write(&path, bytes).unwrap();
    }
}

fn copy_directory(from: &Scratch, name: &str) -> Scratch {
    let copy = Scratch::new(name);
    fs::create_dir_all(&copy.0).unwrap();
    for (path, bytes) in contents(&from.0) {
        fs::write(copy.0.join(path.file_name().unwrap()), bytes).unwrap();
    }
    copy
}

/// A disk that fails after so many changes.
#[derive(Debug)]
struct Failing {
    disk: Disk,
    left: Arc<AtomicUsize>,
}

impl Failing {
    fn change<T>(left: &AtomicUsize, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match left.load(Ordering::Relaxed) {
            0 => Err(io::Error::other("pulled the plug")),
            n => {
                left.store(n - 1, Ordering::Relaxed);
                change()
            }
        }
    }
}

#[derive(Debug)]
struct FailingFile(Arc<dyn File>, Arc<AtomicUsize>);

impl Storage for Failing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(name)?;
        Ok(Arc::new(FailingFile(file, Arc::clone(&self.left))))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = Self::change(&self.left, || self.disk.create(name))?;
        Ok(Arc::new(FailingFile(file, Arc::clone(&self.left))))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Self::change(&self.left, || self.disk.rename(from, to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        Self::change(&self.left, || self.disk.remove(name))
    }
    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
    fn noted(&self, note: Note) -> io::Result<Option<u64>> {
        self.disk.noted(note)
    }
    fn note(&self, note: Note, number: u64) -> io::Result<()> {
        Self::change(&self.left, || self.disk.note(note, number))
    }
}

impl File for FailingFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        Failing::change(&self.1, || self.0.write_at(bytes, offset))
    }
    fn reserve(&self, len: u64, zeroed: bool) -> io::Result<()> {
        Failing::change(&self.1, || self.0.reserve(len, zeroed))
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        Failing::change(&self.1, || self.0.truncate(len))
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

/// Counts bytes that are read.
#[derive(Debug)]
struct Counting {
    disk: Disk,
    read: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct CountingFile(Arc<dyn File>, Arc<AtomicUsize>);

impl Storage for Counting {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(name)?;
        Ok(Arc::new(CountingFile(file, Arc::clone(&self.read))))
    }
    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_names(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn noted(&self, note: Note) -> io::Result<Option<u64>> {
        self.disk.noted(note)
    }
    fn note(&self, _: Note, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl File for CountingFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(into, offset)?;
        self.1.fetch_add(read, Ordering::Relaxed);
        Ok(read)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn reserve(&self, _: u64, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

/// A failing disk has many, and the rest of a segment is not read again for each.
#[test]
fn many_damaged_places_are_read_as_few_times_as_one() {
    for boot in [boot(), BOOT] {
        let scratch = Scratch::new("many-places");
        let writing = Writing::start(&scratch.0, boot);
        let orders = writing.space(space("orders"));
        for i in 0..4_000 {
            let key = format!("key-{i}-with-more-than-16-bytes");
            writing.mark(orders, key.as_bytes(), now().after(HOUR_MS));
            if i % 1_000 == 999 {
                // So that it is said of the first segment that it was durable.
                writing.log.sync(now());
            }
        }
        writing.close();
        let names = segments(&scratch);
        let size: usize = contents(&scratch.0).values().map(Vec::len).sum();
        for at in (1_000..60_000).step_by(200) {
            flip(&scratch.file(&names[0]), at);
        }
        let read = Arc::new(AtomicUsize::new(0));
        let disk = Counting {
            disk: Disk::look(&scratch.0).unwrap(),
            read: Arc::clone(&read),
        };
        let present = Present {
            now: now(),
            boot: self::boot(),
            recovers: true,
            is_copy: false,
        };
        let mut reader = Reader::open(Arc::new(disk), present).unwrap();
        while reader.next_piece().unwrap().is_some() {}
        assert!(reader.finish().losses.len() > 200);
        let read = read.load(Ordering::Relaxed);
        assert!(read < 5 * size, "{read} bytes were read of {size}");
    }
}

/// Whatever is broken, and wherever the mending is cut short: another one ends with the same records, and
/// nothing is left to mend. What `repair` writes has at least those.
#[test]
fn any_damage_is_mended_also_in_several_attempts() {
    let (here, earlier) = (Scratch::new("any-here"), Scratch::new("any-earlier"));
    fill_segments(Writing::start(&here.0, boot()), 2_500);
    // By a run of the machine before this one, after which what was not synced may be there or not.
    fill_segments(Writing::start(&earlier.0, BOOT), 2_500);
    for seed in 0..30 {
        let whole = if seed % 2 == 0 { &here } else { &earlier };
        let mut numbers = Numbers(seed * 77 + 5);
        let broken = copy_directory(whole, "any-broken");
        break_some(&broken, &mut numbers);
        let (found, records) = findings(&broken, true).unwrap();
        for changes in 0.. {
            let copy = copy_directory(&broken, "any-copy");
            let failing = Failing {
                disk: Disk::take(&copy.0).unwrap(),
                left: Arc::new(AtomicUsize::new(changes)),
            };
            let is_done = mend(&failing, &found).is_ok();
            let (between, same) = findings(&copy, true).unwrap();
            assert_eq!(
                same, records,
                "seed {seed}, {changes} changes: {found:?}, {between:?}"
            );
            mend(&failing.disk, &between).unwrap();
            let (again, same) = findings(&copy, true).unwrap();
            assert_eq!(same, records, "seed {seed}, {changes} changes: {found:?}");
            let nothing = (vec![], None, Vec::<String>::new());
            assert_eq!((again.losses, again.tail, again.unused), nothing);
            if is_done {
                break;
            }
        }
        let new = Scratch::new("any-new");
        let before = contents(&broken.0);
        let (status, text, error) = run(&["log", "repair", broken.text(), "--to", new.text()], b"");
        assert_eq!((status, &error[..]), (0, ""));
        assert_eq!(contents(&broken.0), before);
        let (repaired, saved) = findings(&new, false).unwrap();
        assert!(saved >= records, "seed {seed}: {text}");
        assert_eq!(
            (repaired.losses, repaired.tail, repaired.missing),
            (vec![], None, vec![])
        );
    }
}

/// A whole deadline in the server, asked in RESP.
fn expires_at(server: &TestServer, namespace: &str, key: &str) -> String {
    let mut client = server.connect();
    assert_eq!(client.call(&["ONCE.USE", namespace]), "+OK");
    client.call(&["PEXPIRETIME", key])
}

#[test]
fn what_was_dumped_is_loaded_with_its_deadlines_and_values() {
    let scratch = Scratch::new("load");
    let server = TestServer::start();
    let deadline = now().after(HOUR_MS);
    eventful(&scratch, deadline);
    let dumped = onced(&["log", "dump", "--live", scratch.text()], b"").stdout;
    let load = ["log", "import", "--server", &server.address];
    let (status, out, error) = run(&load, &dumped);
    assert_eq!((status, &error[..]), (0, ""));
    assert_eq!(
        out,
        "read 5, new 4, already there 0 (0 now end later), lapsed 0, refused 0, namespaces made 1\n"
    );
    let at = |ms: u64| format!(":{ms}");
    assert_eq!(
        expires_at(&server, "orders", "order-17"),
        at(deadline.0 + 5)
    );
    assert_eq!(expires_at(&server, "orders", "binary"), at(deadline.0));
    assert_eq!(expires_at(&server, "orders", "removed"), ":-2");
    let mut client = server.connect();
    assert_eq!(client.call(&["ONCE.USE", "orders"]), "+OK");
    assert_eq!(client.call(&["GET", "\u{20ac} \"1\"\n"]), "$hello");
    assert_eq!(client.call(&["GET", "order-17"]), "$1");
    let mut line = server.connect();
    assert_eq!(line.ask("USE orders"), "OK");
    assert_eq!(line.ask(r#"SEEN "\xff\x00" 1m FP 00ac FIXED"#), "MISMATCH");
    assert_eq!(line.ask(r#"SEEN "\xff\x00" 1m FP 00ab FIXED"#), "DUP");
    let properties = line.ask_all("NS INFO orders");
    for row in [
        "ttl 1h",
        "maxttl 1d",
        "mode SLIDE",
        "maxkeys 1000",
        "full EVICT",
    ] {
        assert!(
            properties.iter().any(|found| found == row),
            "{properties:?}"
        );
    }

    // Once more: nothing changes.
    let (status, out, error) = run(&load, &dumped);
    assert_eq!((status, &error[..]), (0, ""));
    assert!(
        out.starts_with("read 5, new 0, already there 4 (0 now end later)"),
        "{out}"
    );
    // A history is refused where it shows.
    let history = onced(&["log", "dump", scratch.text()], b"").stdout;
    let (status, _, error) = run(&load, &history);
    assert_eq!(status, 1);
    assert!(
        error.contains("line 8: a removal cannot be loaded"),
        "{error}"
    );
}

#[test]
fn lists_of_keys_are_loaded_and_what_is_wrong_is_named_by_its_line() {
    let server = TestServer::start();
    let import = |input: &[u8], options: &[&str]| {
        let arguments = ["import", "-", "--server", &server.address];
        run(&[&arguments[..], options].concat(), input)
    };
    let (soon, later) = (now().after(HOUR_MS).0, now().after(2 * HOUR_MS).0);
    let lines = format!("a\t{soon}\r\nb\n\na\t{later}\nc\t{soon}\nc\t{soon}\nold\t1600000000000\n");
    let (status, out, error) = import(lines.as_bytes(), &["--namespace", "mails", "--ttl", "10m"]);
    assert_eq!((status, &error[..]), (0, ""));
    assert_eq!(
        out,
        "read 6, new 3, already there 2 (1 now end later), lapsed 1, refused 0\n"
    );
    assert_eq!(expires_at(&server, "mails", "a"), format!(":{later}"));
    let mut client = server.connect();
    assert_eq!(client.ask("USE mails"), "OK");
    let left: u64 = client.ask("TTL b").parse().unwrap();
    assert!((540_000..=600_000).contains(&left), "{left}");

    let key = "k".repeat(9_000);
    let wrong = format!("fine\nx\t{}\n{key}\nfine too\n", soon / 1_000);
    let (status, out, error) = import(wrong.as_bytes(), &[]);
    assert_eq!(status, 1);
    let told: Vec<_> = error.lines().collect();
    assert_eq!(told.len(), 2, "{error}");
    assert!(told[0].starts_with("onced: line 2: ") && told[0].contains("looks like seconds"));
    assert!(
        told[1].starts_with("onced: line 3: ") && told[1].contains("9000 bytes"),
        "{error}"
    );
    assert!(out.starts_with("read 4, new 2, "), "{out}");
    // Without a deadline, the namespace's default.
    let left: u64 = server.connect().ask("TTL fine").parse().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");

    // JSON lines are recognised; a deadline too far off is cut, and an unknown field is not a key.
    let year = now().after(2 * 365 * 24 * HOUR_MS).0;
    let json = format!(
        "{{\"key\":\"j\\t1\",\"deadline_ms\":{soon}}}\n{{\"key_hex\":\"ff\",\"deadline_ms\":{year}}}\n{{\"kye\":\"x\"}}\n"
    );
    let (status, out, error) = import(json.as_bytes(), &[]);
    assert_eq!(status, 1);
    assert!(
        error.contains("line 3: not a JSON line: unknown field `kye`"),
        "{error}"
    );
    assert!(
        out.starts_with("read 3, new 2, ") && out.contains("cut to the longest ttl 1"),
        "{out}"
    );
    assert_eq!(expires_at(&server, "default", "j\t1"), format!(":{soon}"));

    for (options, words) in [
        (&["--ttl", "60"][..], "needs a unit"),
        (
            &["--namespace", "no such name"],
            "line 1: the server answered",
        ),
    ] {
        let (status, _, error) = import(b"a\n", options);
        assert!(status > 0 && error.contains(words), "{error}");
    }
    let (status, _, error) = run(&["import", "/nonexistent/file"], b"");
    assert_eq!((status, error.lines().count()), (2, 1), "{error}");
}

#[test]
fn many_keys_of_many_namespaces_end_up_where_they_belong() {
    let server = TestServer::start();
    let soon = now().after(HOUR_MS).0;
    let mut lines = String::new();
    for i in 0..30_000 {
        let line = format!(
            "{{\"namespace\":\"n{}\",\"key\":\"{i}\",\"deadline_ms\":{soon}}}\n",
            i % 7
        );
        lines.push_str(&line);
    }
    let arguments = ["import", "-", "--server", &server.address];
    let (status, out, _) = run(&arguments, lines.as_bytes());
    assert_eq!(status, 0);
    assert!(out.starts_with("read 30000, new 30000, "), "{out}");
    for n in 0..7 {
        let rows = server.connect().ask_all(&format!("NS INFO n{n}"));
        let keys = (0..30_000).filter(|i| i % 7 == n).count();
        assert!(rows.contains(&format!("keys {keys}")), "{rows:?}");
    }
}

/// A server that logs to a directory.
fn serve(scratch: &Scratch) -> TestServer {
    let server = TestServer::with(|raw| raw.data_dir = Some(scratch.0.clone()));
    common::eventually("the log is read", || server.connect().ask("PING") == "PONG");
    server
}

#[test]
fn a_servers_own_directory_is_verified_dumped_and_repaired() {
    let (scratch, new) = (Scratch::new("served"), Scratch::new("served-new"));
    {
        let server = serve(&scratch);
        let mut client = server.connect();
        for (request, reply) in [
            ("NS SET orders TTL 2h UNSURE REPORT COVERED", "OK"),
            ("USE orders", "OK"),
            ("SEEN purged 1h", "NEW"),
            ("NS PURGE orders", "OK"),
            ("NS SET orders COVERED", "OK"),
            ("SEEN kept 1h", "NEW"),
            ("SEEN lost 1h", "NEW"),
            ("SEEN forgotten 1h", "NEW"),
            ("FORGET forgotten", "OK 1"),
            ("SEEN last 1h FP ab", "NEW"),
        ] {
            let answer = client.ask(request);
            assert!(answer.starts_with(reply), "{request}: {answer}");
        }
    }
    let (status, report) = verify(&scratch);
    assert_eq!(status, 0, "{report}");
    assert_eq!(
        (&report["clean"], &report["closed"]),
        (&true.into(), &true.into())
    );
    let (_, live, _) = run(&["log", "dump", "--live", scratch.text()], b"");
    let keys: Vec<_> = live.lines().filter(|line| line.contains("put")).collect();
    assert_eq!(keys.len(), 3, "{live}");
    assert!(
        !live.contains("purged") && !live.contains("forgotten"),
        "{live}"
    );

    let path = scratch.file("0000000001.log");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|bytes| bytes == b"lost").unwrap();
    flip(&path, at);
    assert_eq!(verify(&scratch).0, 1);
    let (status, text, _) = run(&["log", "repair", scratch.text(), "--to", new.text()], b"");
    assert_eq!(status, 0, "{text}");
    assert_eq!(verify(&new).0, 0);
    let server = serve(&new);
    let mut client = server.connect();
    for (request, reply) in [
        ("USE orders", "OK"),
        ("SEEN kept 1h", "DUP"),
        ("SEEN last 1h FP ab", "DUP"),
        // What is lost may have been seen: the server knows that it does not know.
        ("SEEN lost 1h", "UNSURE"),
        ("SEEN lost 1h", "DUP"),
    ] {
        assert_eq!(client.ask(request), reply, "{request}");
    }
}

#[test]
fn the_help_of_each_subcommand_says_what_it_does() {
    for (arguments, words) in [
        (&["log", "--help"][..], "verify"),
        (&["log", "verify", "--help"], "torn tail"),
        (&["log", "dump", "--help"], "key_hex"),
        (&["log", "repair", "--help"], "UNSURE"),
        (&["log", "import", "--help"], "--live"),
        (&["import", "--help"], "milliseconds"),
    ] {
        let (status, out, _) = run(arguments, b"");
        assert_eq!(status, 0);
        assert!(out.contains(words), "{out}");
    }
}

#[test]
fn compact_leaves_what_counts_and_gives_the_rest_back() {
    let scratch = Scratch::new("compact");
    {
        let server = serve(&scratch);
        let mut client = server.connect();
        for n in 0..2_000 {
            let request = format!(
                "SEEN kept-{} 1h\nSEEN forgotten-{n} 1h\nFORGET forgotten-{n}\n",
                n % 50
            );
            client.send(&request);
        }
        (0..6_000).for_each(|_| drop(client.line()));
        // More than there may be, which is for a server to see to.
        assert_eq!(client.ask("NS SET default MAXKEYS 10 FULL EVICT"), "OK");
    }
    let live = || run(&["log", "dump", "--live", scratch.text()], b"").1;
    let size = || -> u64 {
        let files = fs::read_dir(&scratch.0).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    let (live_before, size_before) = (live(), size());
    assert_eq!(
        live_before
            .lines()
            .filter(|line| line.contains("put"))
            .count(),
        50
    );
    let (status, text, _) = run(&["log", "compact", scratch.text()], b"");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("50 keys"), "{text}");
    assert_eq!(live(), live_before);
    assert!(
        size() < size_before * 2 / 3,
        "{size_before} became {}",
        size()
    );
    assert_eq!(verify(&scratch).0, 0);
    let (status, _, error) = run(
        &["log", "compact", scratch.file("none").to_str().unwrap()],
        b"",
    );
    assert_eq!((status, error.lines().count()), (2, 1), "{error}");
}
