//! Where a server listens or is reached: `HOST:PORT` or `unix:PATH`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// One address, as written in `--listen`, `--server` and the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`; resolved where it is used.
    Tcp(String),
    /// `unix:PATH`: a Unix domain socket.
    Unix(PathBuf),
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// `unix:` without a path.
    #[error("'unix:' needs a path behind it, such as unix:/run/onced.sock")]
    NoPath,
    /// Neither `HOST:PORT` nor `unix:PATH`.
    #[error("'{0}' is not an address: write HOST:PORT, such as 127.0.0.1:6623, or unix:PATH")]
    Malformed(String),
}

impl Address {
    /// Whether it is of this machine, going by its words: a host name other than `localhost` is not looked up.
    pub fn is_local(&self) -> bool {
        let Self::Tcp(host_port) = self else {
            return true;
        };
        let host = host_port.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(AddressError::NoPath);
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err(AddressError::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => f.write_str(host_port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_this_machine_is_told_by_its_words() {
        for local in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "localhost:1",
            "LOCALHOST:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "unix:/x",
        ] {
            assert!(local.parse::<Address>().unwrap().is_local(), "{local}");
        }
        for other in [
            "10.0.0.7:1",
            "0.0.0.0:1",
            "[::]:1",
            "onced.example:1",
            "localhost.example:1",
        ] {
            assert!(!other.parse::<Address>().unwrap().is_local(), "{other}");
        }
    }

    #[test]
    fn addresses_read_and_print_alike() {
        for text in ["127.0.0.1:6623", "localhost:0", "[::1]:6623", "unix:/tmp/s"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "unix:",
            "6623",
            ":6623",
            "host:",
            "host:70000",
            "host:x",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
