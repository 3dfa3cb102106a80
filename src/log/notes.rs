//! What a log must know apart from its segments, as `onced.lock` has it behind its line: the number of the newest
//! segment, and the moment up to which segments were deleted.
//!
//! Each has two places, of which the one with the lower number is written over: so whatever becomes of that, the
//! other holds. A place is text with a checksum: `segment 12 begun, 053cbc45`.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

use super::storage::Note;

const PLACE_BYTES: usize = 64;

impl Note {
    /// Where its two places are: behind all that earlier versions look at, and within the smallest unit that
    /// disks write.
    const fn places(self) -> [u64; 2] {
        match self {
            Self::Begun => [128, 192],
            Self::DeletedUntil => [256, 320],
        }
    }

    /// The words before and behind its number.
    const fn words(self) -> [&'static str; 2] {
        match self {
            Self::Begun => ["segment ", " begun, "],
            Self::DeletedUntil => ["deleted until ", " ms, "],
        }
    }
}

/// The highest number that is noted.
pub(super) fn read(lock: &fs::File, note: Note) -> io::Result<Option<u64>> {
    let [first, second] = note.places().map(|at| read_place(lock, note, at));
    Ok(first?.max(second?))
}

/// Notes another number, durably.
pub(super) fn write(lock: &fs::File, note: Note, number: u64) -> io::Result<()> {
    let places = note.places();
    let [first, second] = places.map(|at| read_place(lock, note, at));
    let at = if first? > second? {
        places[1]
    } else {
        places[0]
    };
    lock.write_all_at(&place_of(note, number), at)?;
    lock.sync_all()
}

fn place_of(note: Note, number: u64) -> Vec<u8> {
    let [before, behind] = note.words();
    let words = format!("{before}{number}{behind}");
    let text = format!("{words}{:08x}", crc32c::crc32c(words.as_bytes()));
    format!("{text:<width$}\n", width = PLACE_BYTES - 1).into_bytes()
}

fn read_place(lock: &fs::File, note: Note, at: u64) -> io::Result<Option<u64>> {
    let mut place = [0; PLACE_BYTES];
    let read = lock.read_at(&mut place, at)?;
    let words = str::from_utf8(&place[..read]).unwrap_or_default();
    let number = words
        .strip_prefix(note.words()[0])
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    Ok(number.filter(|&number| place_of(note, number) == place[..read]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_is_there_whatever_becomes_of_the_last_write() {
        for note in [Note::Begun, Note::DeletedUntil] {
            is_there(note);
        }
    }

    #[test]
    fn one_note_is_not_taken_for_the_other() {
        let path = std::env::temp_dir().join(format!("onced-two-notes-{}", std::process::id()));
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        write(&file, Note::DeletedUntil, 7).unwrap();
        assert_eq!(read(&file, Note::Begun).unwrap(), None);
        write(&file, Note::Begun, 3).unwrap();
        assert_eq!(read(&file, Note::Begun).unwrap(), Some(3));
        assert_eq!(read(&file, Note::DeletedUntil).unwrap(), Some(7));
        fs::remove_file(path).unwrap();
    }

    fn is_there(note: Note) {
        let path = std::env::temp_dir().join(format!("onced-notes-{}", std::process::id()));
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.write_all_at(b"some line\n", 0).unwrap();
        assert_eq!(read(&file, note).unwrap(), None);
        let mut noted = None;
        for number in [1, 2, 4, 6, 9_999_999_999, u64::MAX] {
            let before = fs::read(&path).unwrap();
            write(&file, note, number).unwrap();
            let after = fs::read(&path).unwrap();
            assert!(after.starts_with(b"some line\n"));
            // Cut short anywhere: as before, or as after.
            for cut in 0..after.len() {
                let mut between = before.clone();
                between.resize(after.len().max(before.len()), 0);
                between[..cut].copy_from_slice(&after[..cut]);
                fs::write(&path, &between).unwrap();
                let found = read(&file, note).unwrap();
                assert!(
                    found == noted || found == Some(number),
                    "{found:?} at {cut}"
                );
            }
            fs::write(&path, &after).unwrap();
            noted = Some(number);
            assert_eq!(read(&file, note).unwrap(), noted);
        }
        fs::remove_file(path).unwrap();
    }
}
