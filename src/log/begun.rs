//! The number of the newest segment, as `onced.lock` has it behind its line.
//!
//! It has two places, of which the one with the lower number is written over: so whatever becomes of that, the
//! other holds. A place is text with a checksum: `segment 12 begun, 053cbc45`.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the two places are: behind all that earlier versions look at, and within the smallest unit that disks
/// write.
const PLACES: [u64; 2] = [128, 192];
const PLACE_BYTES: usize = 64;

/// The highest number that is noted.
pub(super) fn read(lock: &fs::File) -> io::Result<Option<u64>> {
    let [first, second] = PLACES.map(|at| read_place(lock, at));
    Ok(first?.max(second?))
}

/// Notes another number, durably.
pub(super) fn write(lock: &fs::File, number: u64) -> io::Result<()> {
    let [first, second] = PLACES.map(|at| read_place(lock, at));
    let at = if first? > second? {
        PLACES[1]
    } else {
        PLACES[0]
    };
    lock.write_all_at(&place_of(number), at)?;
    lock.sync_all()
}

fn place_of(number: u64) -> Vec<u8> {
    let words = format!("segment {number} begun, ");
    let text = format!("{words}{:08x}", crc32c::crc32c(words.as_bytes()));
    format!("{text:<width$}\n", width = PLACE_BYTES - 1).into_bytes()
}

fn read_place(lock: &fs::File, at: u64) -> io::Result<Option<u64>> {
    let mut place = [0; PLACE_BYTES];
    let read = lock.read_at(&mut place, at)?;
    let words = str::from_utf8(&place[..read]).unwrap_or_default();
    let number = words
        .strip_prefix("segment ")
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    Ok(number.filter(|&number| place_of(number) == place[..read]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_is_there_whatever_becomes_of_the_last_write() {
        let path = std::env::temp_dir().join(format!("onced-begun-{}", std::process::id()));
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.write_all_at(b"some line\n", 0).unwrap();
        assert_eq!(read(&file).unwrap(), None);
        let mut noted = None;
        for number in [1, 2, 4, 6, 9_999_999_999, u64::MAX] {
            let before = fs::read(&path).unwrap();
            write(&file, number).unwrap();
            let after = fs::read(&path).unwrap();
            assert!(after.starts_with(b"some line\n"));
            // Cut short anywhere: as before, or as after.
            for cut in 0..after.len() {
                let mut between = before.clone();
                between.resize(after.len().max(before.len()), 0);
                between[..cut].copy_from_slice(&after[..cut]);
                fs::write(&path, &between).unwrap();
                let found = read(&file).unwrap();
                assert!(
                    found == noted || found == Some(number),
                    "{found:?} at {cut}"
                );
            }
            fs::write(&path, &after).unwrap();
            noted = Some(number);
            assert_eq!(read(&file).unwrap(), noted);
        }
        fs::remove_file(path).unwrap();
    }
}
