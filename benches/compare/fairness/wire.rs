//! How the loaders and the prober reach a server, and how they word what they ask.
//!
//! Every request is for a key that was not asked for before, so every answer is known in advance,
//! and one that differs is an error.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::floor::MSEEN_KEYS;

/// Where a server listens.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(u16),
    Unix(PathBuf),
}

impl Address {
    /// As [`Address::word`] wrote it.
    pub(super) fn parse(word: &str) -> anyhow::Result<Self> {
        if let Some(path) = word.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let port = word.parse().context("an address is a port or unix:PATH")?;
        Ok(Self::Tcp(port))
    }

    pub(super) fn word(&self) -> String {
        match self {
            Self::Tcp(port) => port.to_string(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    pub(super) fn connect(&self) -> io::Result<Socket> {
        let (domain, address) = match self {
            Self::Tcp(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                (Domain::IPV4, SockAddr::from(address))
            }
            Self::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect(&address)?;
        if domain == Domain::IPV4 {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verb {
    /// `SEEN key ttl`, in a line.
    Seen,
    /// `SET key 1 NX PX ms`, in RESP.
    Set,
    /// `MSEEN ttl key…` of a hundred keys, in a line.
    Mseen,
    /// `BEGIN key TTL ttl`, in a line.
    Begin,
}

impl Verb {
    pub(super) const ALL: [Self; 4] = [Self::Seen, Self::Set, Self::Mseen, Self::Begin];

    /// How a table's row names it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Seen => "`SEEN`",
            Self::Set => "`SET NX PX`",
            Self::Mseen => "`MSEEN` of 100",
            Self::Begin => "`BEGIN`",
        }
    }

    /// As [`ValueEnum`] reads it.
    pub(super) fn word(self) -> String {
        let value = self.to_possible_value();
        value.expect("no variant is skipped").get_name().to_owned()
    }

    /// Keys in a request.
    pub(super) const fn keys(self) -> u64 {
        match self {
            Self::Mseen => MSEEN_KEYS as u64,
            _ => 1,
        }
    }

    /// Appends a request for new keys.
    pub(super) fn ask(self, keys: &mut Keys, out: &mut Vec<u8>) {
        match self {
            Self::Seen => {
                out.extend_from_slice(b"SEEN ");
                keys.append_next(out);
                out.extend_from_slice(b" 1h\n");
            }
            Self::Set => {
                out.extend_from_slice(b"*6\r\n$3\r\nSET\r\n$36\r\n");
                keys.append_next(out);
                out.extend_from_slice(b"\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$7\r\n3600000\r\n");
            }
            Self::Mseen => {
                out.extend_from_slice(b"MSEEN 1h");
                for _ in 0..MSEEN_KEYS {
                    out.push(b' ');
                    keys.append_next(out);
                }
                out.push(b'\n');
            }
            Self::Begin => {
                out.extend_from_slice(b"BEGIN ");
                keys.append_next(out);
                out.extend_from_slice(b" TTL 1h\n");
            }
        }
    }

    /// That a reply, up to its line feed, is the one for keys that are new.
    pub(super) fn check(self, reply: &[u8]) -> anyhow::Result<()> {
        let is_right = match self {
            Self::Seen => reply == b"NEW",
            Self::Set => reply == b"+OK\r",
            Self::Mseen => reply.len() == MSEEN_KEYS && reply.iter().all(|&letter| letter == b'N'),
            Self::Begin => reply.starts_with(b"RUN ") && reply.ends_with(b" 1"),
        };
        if !is_right {
            bail!(
                "new keys were answered with {:?}",
                String::from_utf8_lossy(&reply[..reply.len().min(120)])
            );
        }
        Ok(())
    }
}

/// UUID texts that differ from one another, and from those of another `lane`.
#[derive(Debug)]
pub(super) struct Keys {
    lane: u32,
    next: u32,
}

impl Keys {
    pub(super) fn of_lane(lane: u32) -> Self {
        Self { lane, next: 0 }
    }

    fn append_next(&mut self, out: &mut Vec<u8>) {
        let number = u64::from(self.lane) << 32 | u64::from(self.next);
        self.next += 1;
        // An odd factor and an xor with the shifted self lose nothing: numbers that differ stay so.
        let mixed = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let other = number.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let [a, b] = [hex(mixed >> 32), hex(mixed)];
        let [c, d] = [hex(other >> 32), hex(other)];
        let mut text = [b'-'; 36];
        text[..8].copy_from_slice(&a);
        text[9..13].copy_from_slice(&b[..4]);
        text[14..18].copy_from_slice(&b[4..]);
        text[19..23].copy_from_slice(&c[..4]);
        text[24..28].copy_from_slice(&c[4..]);
        text[28..].copy_from_slice(&d);
        out.extend_from_slice(&text);
    }
}

/// The digits of the lower 32 bits, all eight at a time: loaders that spend their core on making
/// keys would not keep a server busy.
fn hex(number: u64) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let number = number & 0xffff_ffff;
    let halves = (number | number << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | bytes << 4) & (EACH * 0x0f);
    let is_letter = ((nibbles + EACH * 6) >> 4) & EACH;
    (nibbles + EACH * u64::from(b'0') + is_letter * 39).to_be_bytes()
}
