//! Logs on the simulated disk, torn and damaged by seed: whatever is read of them was written by the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use onced::log::control::Control;
use onced::log::format::Format;
use onced::log::frame;
use onced::log::mend::resume;
use onced::log::reader::{Findings, LogError, Present, Reader};
use onced::log::record::{self, Content};
use onced::log::segment::{self, Header, Position};
use onced::log::storage::Storage;
use onced::log::writer::{Fsync, Log, LogConfig, Start};
use onced::store::Secret;
use onced::time::Millis;

use crate::attack;
use crate::common::process::Dice;
use crate::frames;
use crate::from_environment;
use crate::simulated_disk::SimulatedDisk;

const NOW: Millis = Millis(1_790_000_000_000);
const BOOT: [u8; 16] = [1; 16];
const DEADLINE: Millis = Millis(NOW.0 + 3_600_000);
/// Damaged logs unless `ONCED_FORGERY_LOGS` says otherwise.
const LOGS: u64 = 800;
/// Damages of one log.
const DAMAGES: u64 = 20;

/// A frame: where it is, the number of its namespace, and its payload.
type Place = (Position, u32, Vec<u8>);

/// A log, and what was written to it.
struct Attacked {
    disk: SimulatedDisk,
    written: BTreeSet<Place>,
    is_tagged: bool,
}

fn config(seed: u64) -> LogConfig {
    LogConfig {
        fsync: Fsync::EverySec,
        segment_bytes: 64 << 10,
        frame_bytes_max: 16 << 10,
        boot: BOOT,
        secrets: frames::secrets(seed),
    }
}

fn present(recovers: bool) -> Present {
    Present {
        now: NOW,
        boot: BOOT,
        recovers,
        is_copy: false,
    }
}

/// All frames that a start would apply.
fn read(disk: &SimulatedDisk, recovers: bool) -> Result<(BTreeSet<Place>, Findings), LogError> {
    let mut reader = Reader::open(Arc::new(disk.clone()), present(recovers))?;
    let mut read = BTreeSet::new();
    while let Some(piece) = reader.next_piece()? {
        for found in piece.frames() {
            read.insert((found.at, found.space, found.payload.to_vec()));
        }
    }
    Ok((read, reader.finish()))
}

impl Attacked {
    /// Whether all of these frames were written: where they are, or anywhere in a segment of an earlier server,
    /// whose frames do not say where they belong, so that one that is missing as a whole is not missed.
    fn has_all(&self, read: &BTreeSet<Place>) -> bool {
        let of = |frames: &BTreeSet<Place>| -> BTreeSet<_> {
            let of_one = |(_, space, payload): &Place| (*space, payload.clone());
            frames.iter().map(of_one).collect()
        };
        read.is_subset(&self.written) || !self.is_tagged && of(read).is_subset(&of(&self.written))
    }
}

/// A log with what attackers stored among what others did.
fn attacked(seed: u64) -> Attacked {
    let mut dice = Dice::new(seed);
    let disk = SimulatedDisk::new(seed);
    let start = Start {
        log: [3; 16],
        next_segment: 1,
        ..Start::default()
    };
    let log = Log::start(Arc::new(disk.clone()), config(seed), start, NOW).unwrap();
    let secret = Secret::new([5; 192]);
    for n in 0..10 + dice.below(30) {
        let segments = log.segments() as u64;
        let bytes = 50 + dice.below(12 << 10) as usize;
        let forged = if dice.one_in(4) && n > 3 {
            // Even frames that the log itself wrote, elsewhere in this segment.
            log.sync(NOW);
            let file = disk.read(&segment::name(segments));
            let all = frames::frames(&file);
            let copied = all.iter().map(|frame| &file[frame.range.clone()]);
            let mut copied = copied.collect::<Vec<_>>().concat();
            copied.truncate(bytes);
            copied
        } else {
            attack::frames(bytes, DEADLINE, segments, dice.below(64 << 10), dice.next())
        };
        let mut bytes = Vec::new();
        let begins = frame::begin(&mut bytes);
        match dice.below(3) {
            0 => {
                let key = forged[..forged.len().min(8 << 10)].to_vec();
                record::push_put(&mut bytes, &secret.key(&key), DEADLINE, &Content::default());
            }
            1 => {
                let content = Content {
                    value: Some(&forged),
                    ..Content::default()
                };
                let key = format!("key-{n}").into_bytes();
                record::push_put(&mut bytes, &secret.key(&key), DEADLINE, &content);
            }
            _ => {
                let key = format!("honest-{n}").into_bytes();
                record::push_put(&mut bytes, &secret.key(&key), DEADLINE, &Content::default());
            }
        }
        frame::finish(&mut bytes, begins, 1);
        assert!(log.promise(bytes.len()));
        log.append(&bytes, DEADLINE);
        if dice.one_in(2) {
            log.write(NOW);
        }
        if dice.one_in(4) {
            log.sync(NOW.after(200 * n));
        }
    }
    log.write(NOW);
    if dice.one_in(4) {
        log.close(NOW).unwrap();
    }
    drop(log);
    let disk = disk.kill();
    // What was begun and never used is not what this is about.
    for name in disk.list().unwrap() {
        if segment::number(&name).is_none() {
            disk.remove(&name).unwrap();
        }
    }
    let is_tagged = !dice.one_in(3);
    if !is_tagged {
        for name in names(&disk) {
            make_old(&disk, &name);
        }
    }
    let (written, _) = read(&disk, false).unwrap();
    assert!(written.len() > 3);
    Attacked {
        disk,
        written,
        is_tagged,
    }
}

fn names(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.names();
    names.sort();
    names
}

/// Writes a segment as an earlier server would have.
fn make_old(disk: &SimulatedDisk, name: &str) {
    let file = disk.read(name);
    let header = Header {
        secret: None,
        ..frames::header(&file)
    };
    let mut old = header.bytes();
    for frame in frames::frames(&file) {
        let at = old.len() as u64;
        Format::v1().push(&mut old, at, frame.space, frame.payload);
    }
    disk.put(name, &old);
}

/// Damages one file in some way; returns whether that is the newest, torn as by a kill.
fn damage(disk: &SimulatedDisk, dice: &mut Dice) -> bool {
    let names = names(disk);
    let newest = names.last().unwrap();
    let name = dice.pick(&names);
    let mut file = disk.read(name);
    let len = file.len() as u64;
    let sector = |at: u64| at as usize..(at as usize + 512).min(len as usize);
    match dice.below(9) {
        0..3 => {
            let mut torn = disk.read(newest);
            let whole = torn.len();
            // What it begins with was durable before anything else was written.
            let begins = frames::frames(&torn)[0].range.end;
            let left = (torn.len() - begins).max(1) as u64;
            torn.truncate(begins + dice.below(left) as usize);
            if dice.one_in(2) {
                torn.resize(whole, 0);
            }
            disk.put(newest, &torn);
            return true;
        }
        3..5 => {
            for _ in 0..=dice.below(3) {
                file[dice.below(len) as usize] ^= 1 << dice.below(8);
            }
        }
        5 => file[sector(dice.below(len) / 512 * 512)].fill(0),
        6 => file[sector(dice.below(len))].fill_with(|| dice.next() as u8),
        // What another place has, as from a write that went astray.
        7 => {
            let other = dice.pick(&names);
            let other = disk.read(other);
            let from = dice.below(other.len() as u64) as usize;
            let copied = &other[from..(from + 4096).min(other.len())];
            let to = dice.below(len) as usize;
            let bytes = copied.len().min(file.len() - to);
            file[to..to + bytes].copy_from_slice(&copied[..bytes]);
        }
        // Some bytes are missing, so that all behind them is elsewhere.
        _ => {
            let at = dice.below(len) as usize;
            let end = at + 1 + dice.below(200) as usize;
            file.drain(at..end.min(file.len()));
        }
    }
    disk.put(name, &file);
    false
}

/// Frames that say something of keys and namespaces, wherever they are.
fn said(frames: &BTreeSet<Place>) -> BTreeSet<(u32, Vec<u8>)> {
    let says = |space: u32, payload: &[u8]| {
        space != frame::CONTROL
            || matches!(
                Control::of(payload),
                Some(Control::Space(_) | Control::Dropped { .. })
            )
    };
    let frames = frames
        .iter()
        .filter(|(_, space, payload)| says(*space, payload));
    frames
        .map(|(_, space, payload)| (*space, payload.clone()))
        .collect()
}

/// Returns whether the log was torn, and whether something was left out of it.
fn check(attacked: &Attacked, seed: u64) -> (bool, bool) {
    let mut dice = Dice::new(seed);
    let disk = attacked.disk.kill();
    let is_torn = damage(&disk, &mut dice);
    match read(&disk, false) {
        Ok((read, _)) => assert!(attacked.has_all(&read), "forged, in order"),
        Err(error) => assert!(
            !(is_torn && attacked.is_tagged),
            "a torn tail was refused: {error}"
        ),
    }
    let (found, findings) = read(&disk, true).unwrap();
    assert!(attacked.has_all(&found), "forged, by --recover");
    let is_less = found.len() < attacked.written.len();
    if dice.one_in(4) {
        let start = Start {
            log: findings.log,
            sealed: findings.segments.clone(),
            next_segment: findings.next_segment,
            ..Start::default()
        };
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let log = resume(&storage, &findings, config(!seed), start, NOW).unwrap();
        log.close(NOW).unwrap();
        drop(log);
        let (mended, _) = read(&disk.kill(), false).unwrap();
        assert_eq!(said(&mended), said(&found), "mended");
    }
    (is_torn, is_less)
}

#[test]
fn nothing_that_was_stored_is_read_as_a_frame() {
    let logs = from_environment("ONCED_FORGERY_LOGS").unwrap_or(LOGS);
    let seeds = match from_environment("ONCED_FORGERY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..logs.div_ceil(DAMAGES),
    };
    let (mut count, mut torn, mut less) = (0, 0, 0);
    for seed in seeds {
        let played = std::panic::catch_unwind(|| {
            let attacked = attacked(seed);
            let all = (0..DAMAGES).map(|n| check(&attacked, seed * DAMAGES + n));
            all.collect::<Vec<_>>()
        });
        let Ok(played) = played else {
            panic!("failed: ONCED_FORGERY_SEED={seed}");
        };
        for (is_torn, is_less) in played {
            count += 1;
            torn += u64::from(is_torn);
            less += u64::from(is_less);
        }
    }
    println!(
        "{count} damaged logs, {torn} of them torn, {less} of them with less than before: 0 forged"
    );
    assert!(
        count < 100 || (torn > count / 5 && less > count / 2),
        "{torn} {less}"
    );
}

/// Wherever the newest segment ends, and whatever stands before that: it is a tail.
#[test]
fn a_cut_at_any_byte_is_a_torn_tail() {
    let seeds = from_environment("ONCED_FORGERY_LOGS").map_or(2, |logs| logs / 5_000);
    for attacked in (0..)
        .map(attacked)
        .filter(|one| one.is_tagged)
        .take(seeds as usize)
    {
        let newest = names(&attacked.disk).pop().unwrap();
        let whole = attacked.disk.read(&newest);
        let step = if seeds > 2 { 1 } else { 97 };
        // What it begins with was durable before anything else was written.
        let begins = frames::frames(&whole)[0].range.end;
        for len in (begins..whole.len())
            .step_by(step)
            .chain(begins..begins + 200)
        {
            let disk = attacked.disk.kill();
            let mut torn = whole[..len.min(whole.len())].to_vec();
            torn.resize(whole.len(), 0);
            disk.put(&newest, &torn);
            let (read, _) = read(&disk, false).unwrap_or_else(|error| panic!("{len}: {error}"));
            assert!(read.is_subset(&attacked.written), "{len}");
        }
    }
}
