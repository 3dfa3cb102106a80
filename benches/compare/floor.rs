//! A server that does nothing: it reads, counts line ends and answers, from one epoll loop.
//!
//! What it costs is the price of sockets and bytes alone, the floor under every server that is
//! measured in the same way. It stores nothing and always answers as if a key were new, so it is
//! asked for its speed only. It understands no protocol beyond the number of line ends that make
//! a request, and relies on a connection staying with the kind of request that it began with.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;

use anyhow::Context;
use memchr::memchr_iter;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use socket2::Socket;

/// The first argument with which this executable is the server that does nothing.
pub(crate) const ROLE: &str = "floor-server";

const READ_BYTES: usize = 64 * 1024;
/// Replies laid out in advance, more than a read holds requests of a usual length.
const REPLIES_READY: usize = 2_048;
/// Keys in each `MSEEN` it is sent.
pub(crate) const MSEEN_KEYS: usize = 100;
/// What the listeners' tokens begin with; connections count from 0.
const LISTENERS_FROM: u64 = u64::MAX - 1;

/// Serves on the port that the arguments name, and at the path if they name one, until it is killed.
pub(crate) fn serve(mut args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let port = args.next().and_then(|word| word.into_string().ok());
    let port: u16 = port
        .and_then(|word| word.parse().ok())
        .context("give a port")?;
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("cannot listen")?;
    let unix = args.next().map(UnixListener::bind).transpose();
    let unix = unix.context("cannot listen at the path")?;
    let listeners: Vec<Socket> = [Some(tcp.into()), unix.map(Socket::from)]
        .into_iter()
        .flatten()
        .collect();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (token, listener) in (LISTENERS_FROM..).zip(&listeners) {
        listener.set_nonblocking(true)?;
        let token = EventData::new_u64(token);
        epoll::add(&epoll, listener, token, EventFlags::IN)?;
    }
    let replies = Replies::new();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut inbox = vec![0; READ_BYTES];
    let mut events: Vec<Event> = Vec::with_capacity(256);
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            waited => waited.context("cannot wait for events")?,
        };
        for event in events.drain(..) {
            let token = event.data.u64();
            if token >= LISTENERS_FROM {
                let listener = &listeners[(token - LISTENERS_FROM) as usize];
                accept_all(listener, &epoll, &mut connections)?;
                continue;
            }
            let place = &mut connections[token as usize];
            let Some(connection) = place else { continue };
            match connection.turn(&replies, &mut inbox) {
                Turn::Done => {}
                Turn::Blocked(now) => {
                    let flags = if now { EventFlags::OUT } else { EventFlags::IN };
                    epoll::modify(&epoll, &connection.stream, event.data, flags)?;
                }
                // Closing takes it out of the epoll set.
                Turn::Closed => *place = None,
            }
        }
    }
}

fn accept_all(
    listener: &Socket,
    epoll: &OwnedFd,
    connections: &mut Vec<Option<Connection>>,
) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("cannot accept"),
        };
        stream.set_nonblocking(true)?;
        if peer.is_ipv4() {
            stream.set_tcp_nodelay(true)?;
        }
        let token = EventData::new_u64(connections.len() as u64);
        epoll::add(epoll, &stream, token, EventFlags::IN)?;
        connections.push(Some(Connection {
            stream,
            kind: None,
            line_ends: 0,
            unsent: Vec::new(),
        }));
    }
}

/// What kind of request a connection sends; its first byte tells.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// `SET key 1 NX PX ms` in RESP.
    Set,
    /// `SEEN key ttl` in a line.
    Seen,
    /// `MSEEN ttl key…` in a line.
    Mseen,
}

impl Kind {
    fn of(first_byte: u8) -> Self {
        match first_byte {
            b'*' => Self::Set,
            b'M' => Self::Mseen,
            _ => Self::Seen,
        }
    }

    /// `*6`, and two for each of the six words; or the end of the line.
    fn line_ends(self) -> usize {
        match self {
            Self::Set => 13,
            Self::Seen | Self::Mseen => 1,
        }
    }
}

/// Replies of each kind, many in a row, so that answering copies nothing.
struct Replies {
    set: Vec<u8>,
    seen: Vec<u8>,
    mseen: Vec<u8>,
}

impl Replies {
    fn new() -> Self {
        let letters = format!("{}\n", "N".repeat(MSEEN_KEYS));
        Self {
            set: b"+OK\r\n".repeat(REPLIES_READY),
            seen: b"NEW\n".repeat(REPLIES_READY),
            mseen: letters.into_bytes().repeat(REPLIES_READY),
        }
    }

    fn of(&self, kind: Kind) -> &[u8] {
        match kind {
            Kind::Set => &self.set,
            Kind::Seen => &self.seen,
            Kind::Mseen => &self.mseen,
        }
    }
}

struct Connection {
    stream: Socket,
    kind: Option<Kind>,
    /// Line ends of a request whose rest has not come yet.
    line_ends: usize,
    /// Replies that the socket did not take.
    unsent: Vec<u8>,
}

/// How a connection's turn ended.
enum Turn {
    Done,
    /// It begins (or no longer has) to wait for room to write.
    Blocked(bool),
    Closed,
}

impl Connection {
    /// One read and one write, or the rest of an earlier write.
    fn turn(&mut self, replies: &Replies, inbox: &mut [u8]) -> Turn {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            return match self.send(&unsent) {
                Turn::Done => Turn::Blocked(false),
                other => other,
            };
        }
        let received = match self.stream.read(inbox) {
            Ok(0) => return Turn::Closed,
            Ok(received) => &inbox[..received],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Done,
            Err(_) => return Turn::Closed,
        };
        let kind = *self.kind.get_or_insert_with(|| Kind::of(received[0]));
        let line_ends = self.line_ends + memchr_iter(b'\n', received).count();
        self.line_ends = line_ends % kind.line_ends();
        let requests = line_ends / kind.line_ends();
        let ready = replies.of(kind);
        let reply_bytes = ready.len() / REPLIES_READY;
        if requests <= REPLIES_READY {
            self.send(&ready[..requests * reply_bytes])
        } else {
            self.send(&ready[..reply_bytes].repeat(requests))
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Turn {
        if bytes.is_empty() {
            return Turn::Done;
        }
        let sent = match self.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return Turn::Closed,
        };
        if sent == bytes.len() {
            return Turn::Done;
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Turn::Blocked(true)
    }
}
