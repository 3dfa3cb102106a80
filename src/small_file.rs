//! Files that are read whole, such as settings: bounded, and only regular ones.
//!
//! A device has no end, a pipe is waited for, and a large file is somebody's mistake: none of them is to
//! take this process's memory or time. Links are followed: the path is the operator's, and settings that an
//! orchestrator mounts are links.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Reads a text file of at most so many bytes.
pub(crate) fn read_to_string(path: &Path, bytes_max: u64) -> io::Result<String> {
    // A pipe is opened without waiting for who writes to it, and then refused.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(invalid("it is not a regular file".to_owned()));
    }
    let too_large = || invalid(format!("it is larger than {bytes_max} bytes"));
    if metadata.len() > bytes_max {
        return Err(too_large());
    }
    let mut text = String::new();
    // It may grow meanwhile.
    if file.take(bytes_max + 1).read_to_string(&mut text)? as u64 > bytes_max {
        return Err(too_large());
    }
    Ok(text)
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_or_no_file_is_refused() {
        let path = std::env::temp_dir().join(format!("onced-small-{}", std::process::id()));
        std::fs::write(&path, "12345678").unwrap();
        assert_eq!(read_to_string(&path, 8).unwrap(), "12345678");
        let refused = read_to_string(&path, 7).unwrap_err().to_string();
        assert_eq!(refused, "it is larger than 7 bytes");
        std::fs::remove_file(&path).unwrap();
        let refused = read_to_string(Path::new("/dev/zero"), 8).unwrap_err();
        assert_eq!(refused.to_string(), "it is not a regular file");
        assert!(read_to_string(Path::new("/"), 8).is_err());
    }
}
