//! Listening sockets: binding them, and accepting without falling over.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep};

use super::{Accepted, ServerError};
use crate::address::Address;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// A peer that is silent for this long is asked whether it is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_mins(1);
/// How long accepting rests when the system has no room for another connection.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// How often it is said that connections cannot be accepted.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A bound socket; a Unix one removes its file when dropped.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(StdTcpListener),
    Unix(StdUnixListener, SocketFile),
}

/// The file of a Unix socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Which file it is: another server may have put its own in its place.
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            inode: socket_inode(path),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && socket_inode(&self.path) == self.inode {
            let _somebody_may_have_removed_it = fs::remove_file(&self.path);
        }
    }
}

/// Which file a socket is; `None` for what is none, a link to one included.
fn socket_inode(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    let is_socket = found.file_type().is_socket();
    is_socket.then(|| (found.dev(), found.ino()))
}

impl Listener {
    /// Binds every address that the name stands for.
    pub(super) fn bind(address: &Address, insecure: bool) -> Result<Vec<Self>, ServerError> {
        let failed = |source| ServerError::Listen {
            address: address.to_string(),
            source,
        };
        match address {
            Address::Unix(path) => Ok(vec![bind_unix(path).map_err(failed)?]),
            Address::Tcp(host_port) => {
                let resolved: Vec<_> = host_port.to_socket_addrs().map_err(failed)?.collect();
                if !insecure
                    && let Some(open) = resolved
                        .iter()
                        .find(|resolved| !resolved.ip().is_loopback())
                {
                    return Err(ServerError::Open {
                        address: open.to_string(),
                    });
                }
                resolved
                    .into_iter()
                    .map(|resolved| bind_tcp(resolved).map_err(failed))
                    .collect()
            }
        }
    }

    /// Where it listens; port 0 has become a real one.
    pub(super) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?.to_string())),
            Self::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// Accepts for ever, and hands every connection on.
    pub(super) async fn accept(self, mut hand_on: impl FnMut(Accepted)) -> io::Result<()> {
        let mut failures = Failures::default();
        match self {
            Self::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                loop {
                    match listener.accept().await {
                        Ok((stream, peer)) => {
                            match tune(&stream).and_then(|()| stream.into_std()) {
                                Ok(stream) => hand_on(Accepted::Tcp(stream, peer)),
                                Err(error) => {
                                    tracing::debug!(%error, "a connection broke before it began");
                                }
                            }
                        }
                        Err(error) => failures.rest_after(&error).await,
                    }
                }
            }
            Self::Unix(listener, _file) => {
                let listener = UnixListener::from_std(listener)?;
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => match stream.into_std() {
                            Ok(stream) => hand_on(Accepted::Unix(stream)),
                            Err(error) => {
                                tracing::debug!(%error, "a connection broke before it began");
                            }
                        },
                        Err(error) => failures.rest_after(&error).await,
                    }
                }
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Tcp(socket.into()))
}

/// Binds a Unix socket; a file that a dead server left behind is replaced, a living one's is not.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    if socket_inode(path).is_some()
        && StdUnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = StdUnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(listener, SocketFile::at(path)))
}

fn tune(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )
}

/// Out of file descriptors or memory, accepting would fail again at once and burn a core: wait
/// for a connection to end. Other errors concern one connection that is already gone.
#[derive(Default)]
struct Failures {
    warned: Option<Instant>,
}

impl Failures {
    async fn rest_after(&mut self, error: &io::Error) {
        if self
            .warned
            .is_none_or(|warned| warned.elapsed() > WARN_EVERY)
        {
            tracing::warn!(%error, "cannot accept connections; trying again and again");
            self.warned = Some(Instant::now());
        }
        sleep(ACCEPT_REST).await;
    }
}
