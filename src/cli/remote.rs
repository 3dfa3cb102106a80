//! A small blocking client of the line protocol, for subcommands.
//!
//! One connection, used by one thread. Requests are sent whole and replies come back in the
//! order of the requests, so a caller may pipeline: several [`Remote::send`], one
//! [`Remote::flush`], as many [`Remote::recv`]. It does not reconnect or repeat a request: a
//! subcommand that loses its server ends with an error, as does one whose server says nothing for
//! too long.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use socket2::{Domain, SockAddr, Socket, Type};

use super::ServerArgs;
use crate::address::Address;

/// The longest reply line read: ten times what the largest default batch is answered with,
/// and a bound on memory when something other than onced answers.
const REPLY_LINE_BYTES_MAX: u64 = 1 << 20;

/// Buffered requests, so that a pipelined batch leaves in few writes.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Remote {
    address: Address,
    requests: BufWriter<Stream>,
    replies: BufReader<Stream>,
}

/// One reply: its first line and, behind `ROWS n`, the n lines that follow, or behind `DONE code n` or
/// `FAILED code n` the body of n bytes; without line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplyText {
    pub(crate) head: Vec<u8>,
    pub(crate) rows: Vec<Vec<u8>>,
}

impl Remote {
    /// Connects, trying every address a host name stands for.
    pub(crate) fn connect(at: &ServerArgs) -> anyhow::Result<Self> {
        Self::connect_to(&at.server, at.timeout)
    }

    /// The same; nothing is waited for longer than `timeout`.
    pub(crate) fn connect_to(address: &Address, timeout: Duration) -> anyhow::Result<Self> {
        let stream =
            Stream::connect(address, timeout).map_err(|err| unreachable_server(address, &err))?;
        let sending = stream
            .try_clone()
            .with_context(|| format!("cannot use the connection to {address}"))?;
        Ok(Self {
            address: address.clone(),
            requests: BufWriter::with_capacity(SEND_BUFFER_BYTES, sending),
            replies: BufReader::new(stream),
        })
    }

    /// Waits no longer than this for what the replies from here on are made of.
    pub(crate) fn wait_at_most(&mut self, timeout: Duration) -> anyhow::Result<()> {
        self.replies
            .get_ref()
            .set_read_timeout(timeout)
            .with_context(|| format!("cannot use the connection to {}", self.address))
    }

    /// Ends the connection, without sending what is still queued.
    pub(crate) fn abandon(self) {
        let _unsent = self.requests.into_parts();
    }

    /// Sends one request line, given without its line end, and reads its reply.
    pub(crate) fn request(&mut self, line: &[u8]) -> anyhow::Result<ReplyText> {
        self.send(line)?;
        self.flush()?;
        self.recv()
    }

    /// Queues one request line, given without its line end.
    pub(crate) fn send(&mut self, line: &[u8]) -> anyhow::Result<()> {
        debug_assert!(!line.contains(&b'\n'), "a request is one line");
        self.requests
            .write_all(line)
            .and_then(|()| self.requests.write_all(b"\n"))
            .map_err(|err| lost(&self.address, &err))
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.requests
            .flush()
            .map_err(|err| lost(&self.address, &err))
    }

    /// Waits for the oldest reply not read yet.
    pub(crate) fn recv(&mut self) -> anyhow::Result<ReplyText> {
        let head = self.recv_line()?;
        let mut rows = Vec::new();
        if let Some(count) = head.strip_prefix(b"ROWS ") {
            let count = crate::time::parse_u64(count).ok_or_else(|| {
                anyhow!(
                    "{} is not onced, or is a later one: it answered '{}'",
                    self.address,
                    head.escape_ascii()
                )
            })?;
            for _ in 0..count {
                rows.push(self.recv_line()?);
            }
        } else if head.starts_with(b"DONE ") || head.starts_with(b"FAILED ") {
            let len = head.rsplit(|&byte| byte == b' ').next();
            let len = len.and_then(crate::time::parse_u64).unwrap_or(0);
            rows.push(self.recv_body(len)?);
        }
        Ok(ReplyText { head, rows })
    }

    /// So many bytes and a line end.
    fn recv_body(&mut self, len: u64) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        let read = (&mut self.replies).take(len + 1).read_to_end(&mut body);
        read.map_err(|err| lost(&self.address, &err))?;
        if body.len() as u64 != len + 1 || body.pop() != Some(b'\n') {
            bail!("the server at {} closed the connection", self.address);
        }
        Ok(body)
    }

    fn recv_line(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.replies)
            .take(REPLY_LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|err| lost(&self.address, &err))?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            if line.len() as u64 == REPLY_LINE_BYTES_MAX {
                bail!(
                    "{} is not onced: it answered a line without an end",
                    self.address
                );
            }
            bail!("the server at {} closed the connection", self.address);
        }
        line.pop_if(|last| *last == b'\r');
        Ok(line)
    }
}

pub(super) fn unreachable_server(address: &Address, err: &io::Error) -> anyhow::Error {
    match err.kind() {
        // Nobody listens there; the kind reads better than "Connection refused (os error 111)".
        kind @ io::ErrorKind::ConnectionRefused => {
            anyhow!("cannot reach onced at {address}: {kind}; start it with 'onced serve'")
        }
        io::ErrorKind::NotFound => {
            anyhow!("cannot reach onced at {address}: no such socket; start it with 'onced serve'")
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            anyhow!("cannot reach onced at {address}: no answer in time; --timeout D waits longer")
        }
        _ => anyhow!("cannot reach onced at {address}: {err}"),
    }
}

pub(super) fn lost(address: &Address, err: &io::Error) -> anyhow::Error {
    if err.kind() == io::ErrorKind::WouldBlock {
        return anyhow!("the server at {address} did not answer in time");
    }
    anyhow!("lost the server at {address}: {err}")
}

/// Either kind of connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects; neither that nor any write or read on it takes longer than `timeout`.
    pub(super) fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(host_port) => Self::Tcp(connect_tcp(host_port, timeout)?),
            Address::Unix(path) => Self::Unix(connect_unix(path, timeout)?),
        };
        match &stream {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout))?,
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout))?,
        }
        stream.set_read_timeout(timeout)?;
        Ok(stream)
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }
}

fn connect_tcp(host_port: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("the host name has no address");
    for socket_address in host_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket_address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(err) => failure = err,
        }
    }
    Err(failure)
}

/// One whose server accepts nothing is waited for as for a write.
fn connect_unix(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A remote whose server sends `script` and closes, whatever it is asked.
    fn scripted(script: &'static [u8]) -> Remote {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        thread::spawn(move || listener.accept().unwrap().0.write_all(script).unwrap());
        Remote::connect_to(&address, PATIENCE).unwrap()
    }

    #[test]
    fn replies_are_one_line_or_rows_or_a_body() {
        let mut remote =
            scripted(b"PONG\r\nDONE 7 3\na\nb\nFAILED 0 0\n\nROWS 2\na 1\nb 2\nROWS 0\nOK");
        assert_eq!(remote.recv().unwrap().head, b"PONG");
        assert_eq!(remote.recv().unwrap().rows, [b"a\nb"]);
        assert_eq!(remote.recv().unwrap().rows, [b""]);
        let rows = remote.recv().unwrap();
        assert_eq!(rows.head, b"ROWS 2");
        assert_eq!(rows.rows, [b"a 1", b"b 2"]);
        assert!(remote.recv().unwrap().rows.is_empty());
        let cut = remote.recv().unwrap_err().to_string();
        assert!(cut.ends_with("closed the connection"), "{cut}");
    }

    #[test]
    fn a_missing_server_is_named_with_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        drop(listener);
        assert_eq!(
            Remote::connect_to(&address, PATIENCE)
                .unwrap_err()
                .to_string(),
            format!(
                "cannot reach onced at {address}: connection refused; start it with 'onced serve'"
            )
        );
    }
}
