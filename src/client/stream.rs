//! One connection to the server, in the namespace that is meant, with a server that takes requests.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::config::ClientConfig;
use super::reply::{ClientError, Value, lost, push_request};
use crate::address::Address;

/// How long a connection may be idle before the system asks whether its other end is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Either kind of connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects, and asks whether the server takes requests: what it refuses then, it refused before it was
/// asked for anything else.
pub(super) async fn connect(config: &ClientConfig) -> Result<Box<dyn Stream>, ClientError> {
    let unreachable = |reason: String| ClientError::Unreachable {
        address: config.address.clone(),
        reason,
    };
    let connecting = async {
        let opened = open(&config.address).await;
        let mut stream = opened.map_err(|error| unreachable(error.to_string()))?;
        match greet(&mut *stream, config.namespace.as_deref()).await {
            Ok(()) => Ok(stream),
            Err(ClientError::Lost(reason)) => Err(unreachable(reason)),
            Err(other) => Err(other),
        }
    };
    let connected = timeout(config.connect_timeout, connecting).await;
    connected.unwrap_or_else(|_| Err(unreachable("it did not answer in time".to_owned())))
}

async fn open(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Tcp(host_port) => {
            let stream = TcpStream::connect(host_port).await?;
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// Chooses the namespace, or asks for a sign of life.
async fn greet(stream: &mut dyn Stream, namespace: Option<&str>) -> Result<(), ClientError> {
    let mut request = Vec::new();
    match namespace {
        Some(namespace) => push_request(&[b"USE", namespace.as_bytes()], &mut request),
        None => push_request(&[b"PING"], &mut request),
    }
    let sent = stream.write_all(&request).await;
    sent.map_err(|error| lost(&error))?;
    receive(stream).await.and_then(Value::refused).map(drop)
}

/// The next reply of a connection that nothing else is read from.
pub(super) async fn receive(stream: &mut dyn Stream) -> Result<Value, ClientError> {
    let mut input = BytesMut::new();
    loop {
        if let Some(value) = Value::take(&mut input)? {
            return Ok(value);
        }
        match stream.read_buf(&mut input).await {
            Ok(0) => return Err(ClientError::Lost("the server closed it".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(lost(&error)),
        }
    }
}
