//! Inputs of the tools that read lines: found, opened, decompressed; and what of a line is its text.
//!
//! One rule for all of them, so that a file has the same keys in each: a line ends with `\n` or
//! `\r\n`, which are not of its text, and neither is the byte-order mark that an input may begin
//! with. What was compressed with gzip, zstd or bzip2 is recognised by its first bytes and read
//! decompressed, from a file or a pipe; other compressions are refused by name, so that nothing
//! is taken for lines that is none.

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::iter::zip;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The mark that some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a line, which may be without its end.
pub(super) fn text(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The first line of an input without its byte-order mark.
pub(super) fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

/// Something to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    /// The file of this name; `-` is standard input.
    pub(super) fn named(path: &Path) -> Self {
        if path.as_os_str() == "-" {
            Self::Stdin
        } else {
            Self::File(path.to_owned())
        }
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The bytes that will be read, where that can be known: of a regular file that is not
    /// compressed. A file that is missing or cannot be read is an error here.
    pub(super) fn size(&self) -> anyhow::Result<Option<u64>> {
        let path = match self {
            Self::Stdin => {
                let file = self.open_file()?;
                let metadata = file.metadata().ok();
                // Its first bytes are not looked at: they could not be put back.
                return Ok(metadata
                    .filter(fs::Metadata::is_file)
                    .map(|file| file.len()));
            }
            Self::File(path) => path,
        };
        let metadata = fs::metadata(path).with_context(|| self.cannot_read())?;
        if metadata.is_dir() {
            bail!("{}: it is a directory", self.cannot_read());
        }
        if !metadata.is_file() {
            // Opening a named pipe would wait for its writer.
            return Ok(None);
        }
        let (_, packing) = Packing::look(self.open_file()?).with_context(|| self.cannot_read())?;
        Ok(packing.is_none().then_some(metadata.len()))
    }

    /// Opens it, and decompresses what comes.
    pub(super) fn open(&self) -> anyhow::Result<Box<dyn Read + Send>> {
        let (bytes, packing) =
            Packing::look(self.open_file()?).with_context(|| self.cannot_read())?;
        Ok(match packing {
            None => Box::new(bytes),
            Some(Packing::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
            Some(Packing::Bzip2) => Box::new(bzip2::read::MultiBzDecoder::new(bytes)),
            Some(Packing::Zstd) => Box::new(
                zstd::stream::read::Decoder::new(bytes).with_context(|| self.cannot_read())?,
            ),
            Some(Packing::Other { name, tool }) => bail!(
                "{}: it is compressed with {name}, which is not read here; decompress it with '{tool}' in front",
                self.cannot_read()
            ),
        })
    }

    /// Standard input too is read as a plain file, past the buffer of [`io::Stdin`].
    fn open_file(&self) -> anyhow::Result<File> {
        match self {
            Self::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => File::open(path),
        }
        .with_context(|| self.cannot_read())
    }

    /// What an error begins with.
    pub(super) fn cannot_read(&self) -> String {
        format!("cannot read {}", self.name())
    }
}

/// How bytes were compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Bzip2,
    Zstd,
    /// One that is not read here.
    Other {
        name: &'static str,
        tool: &'static str,
    },
}

/// What compressed bytes begin with; a 0 stands for any byte. A line of text may begin as bzip2's
/// name does, so that goes with the number that its first block begins with, or with that of an
/// end without a block.
const MAGICS: [(&[u8], Packing); 8] = [
    (b"\x1f\x8b\x08", Packing::Gzip),
    (b"\x28\xb5\x2f\xfd", Packing::Zstd),
    (b"\x50\x2a\x4d\x18", Packing::Zstd), // a frame to be skipped, which pzstd begins with
    (b"BZh\0\x31\x41\x59\x26\x53\x59", Packing::Bzip2),
    (b"BZh\0\x17\x72\x45\x38\x50\x90", Packing::Bzip2),
    (b"\xfd7zXZ", other("xz", "xz -dc")),
    (b"\x04\x22\x4d\x18", other("lz4", "lz4 -dc")),
    (b"PK\x03\x04", other("zip", "unzip -p")),
];

const fn other(name: &'static str, tool: &'static str) -> Packing {
    Packing::Other { name, tool }
}

/// Bytes whose first ones were looked at.
type Looked<R> = io::Chain<Cursor<Vec<u8>>, R>;

impl Packing {
    /// Reads no more than it takes to tell how the bytes are compressed, if they are: what a slow
    /// pipe brings first is passed on at once.
    fn look<R: Read>(mut bytes: R) -> io::Result<(Looked<R>, Option<Self>)> {
        let mut seen = Vec::new();
        let packing = loop {
            let fits = |magic: &[u8]| zip(magic, &seen).all(|(want, is)| want == is || *want == 0);
            let possible = MAGICS.iter().filter(|(magic, _)| fits(magic));
            let Some((magic, packing)) = possible.min_by_key(|(magic, _)| magic.len()) else {
                break None;
            };
            let Some(more) = magic.len().checked_sub(seen.len()).filter(|more| *more > 0) else {
                break Some(*packing);
            };
            let mut piece = [0; 16];
            match bytes.read(&mut piece[..more]) {
                Ok(0) => break None,
                Ok(count) => seen.extend_from_slice(&piece[..count]),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        };
        Ok((Cursor::new(seen).chain(bytes), packing))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_is_its_text_whatever_ends_it() {
        for (line, want) in [
            (&b"a\n"[..], &b"a"[..]),
            (b"a\r\n", b"a"),
            (b"a\r", b"a"),
            (b"a", b"a"),
            (b"a\r\r\n", b"a\r"),
            (b"\r\n", b""),
            (b"\n", b""),
            (b"", b""),
        ] {
            assert_eq!(text(line), want, "{}", line.escape_ascii());
        }
        assert_eq!(without_mark(b"\xef\xbb\xbfa"), b"a");
        assert_eq!(without_mark(b"\xef\xbba"), b"\xef\xbba");
    }

    /// Gives out one byte a read, and panics once it is read beyond its end.
    struct Drops(Vec<u8>);

    impl Read for Drops {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer[0] = self.0.remove(0);
            Ok(1)
        }
    }

    #[test]
    fn a_slow_pipe_is_not_waited_for() {
        for text in [&b"a"[..], b"\n", b"B\n", b"BZh9\n", b"PK\n", b"\x1f\n"] {
            let (_, packing) = Packing::look(Drops(text.to_vec())).unwrap();
            assert_eq!(packing, None);
        }
    }

    #[test]
    fn what_is_compressed_is_told_by_its_first_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"a\n").unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(b"a\n").unwrap();
        let no_bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        let zstd = zstd::encode_all(&b"a\n"[..], 1).unwrap();
        for (bytes, want) in [
            (gzip.finish().unwrap(), Some(Packing::Gzip)),
            (bzip2.finish().unwrap(), Some(Packing::Bzip2)),
            (no_bzip2.finish().unwrap(), Some(Packing::Bzip2)),
            (zstd, Some(Packing::Zstd)),
            (b"\xfd7zXZ\0\0\x04".to_vec(), Some(other("xz", "xz -dc"))),
            (b"plain".to_vec(), None),
            (b"".to_vec(), None),
        ] {
            let (mut looked, packing) = Packing::look(&bytes[..]).unwrap();
            assert_eq!(packing, want);
            let mut read = Vec::new();
            looked.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes, "not a byte is lost");
        }
    }

    #[test]
    fn missing_files_and_directories_are_named() {
        let missing = Input::named("no/such/file".as_ref()).size().unwrap_err();
        assert!(format!("{missing:#}").starts_with("cannot read no/such/file: "));
        let directory = Input::named(".".as_ref()).size().unwrap_err();
        assert_eq!(directory.to_string(), "cannot read .: it is a directory");
    }
}
