//! A namespace of the run's own, so that a load leaves nothing on a server that is in use.
//!
//! It is made before the load, entered by each connection, and dropped afterwards, whatever became of the run.
//! A server that is not onced has no such thing: there the keys stay until their window ends.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::protocol::Protocol;
use crate::address::Address;
use crate::cli::remote::Remote;

/// The longest reply to entering it.
const REPLY_BYTES_MAX: usize = 256;

/// A namespace that is dropped with this.
#[derive(Debug)]
pub(super) struct OwnSpace {
    name: String,
    server: Address,
    timeout: Duration,
}

impl OwnSpace {
    /// Makes one on the server; `None` where that is not onced.
    pub(super) fn make(
        server: &Address,
        timeout: Duration,
        seed: u64,
    ) -> anyhow::Result<Option<Self>> {
        let mut remote = Remote::connect_to(server, timeout)?;
        let name = format!("bench-{seed:016x}");
        let reply = remote.request(format!("USE {name}").as_bytes())?.head;
        if reply.starts_with(b"ERR ") {
            bail!(
                "cannot make a namespace for the load, '{}': --namespace NAME uses one that is there",
                String::from_utf8_lossy(&reply)
            );
        }
        // Redis and memcached do not know the word.
        let is_onced = reply == b"OK";
        Ok(is_onced.then(|| Self {
            name,
            server: server.clone(),
            timeout,
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Removes it, with all that is in it.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        let Self {
            name,
            server,
            timeout,
        } = self;
        let drop = || {
            let mut remote = Remote::connect_to(&server, timeout)?;
            let reply = remote
                .request(format!("NS DROP {name} FORCE").as_bytes())?
                .head;
            ensure!(
                reply == b"OK",
                "the server answered '{}'",
                String::from_utf8_lossy(&reply)
            );
            anyhow::Ok(())
        };
        drop().with_context(|| format!("the load's namespace '{name}' stays on {server}"))
    }
}

/// Enters a namespace, as the first thing on a connection.
pub(super) async fn enter<S>(stream: &mut S, protocol: Protocol, name: &str) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = match protocol {
        Protocol::Line => format!("USE {name}\n"),
        Protocol::Resp => format!("*2\r\n$3\r\nUSE\r\n${}\r\n{name}\r\n", name.len()),
        Protocol::Memcached => bail!("memcached's protocol has no namespaces"),
    };
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    // Nothing else is on its way, so nothing is read beyond the line.
    while !reply.ends_with(b"\n") && reply.len() < REPLY_BYTES_MAX {
        let byte = stream
            .read_u8()
            .await
            .context("the server closed the connection")?;
        reply.push(byte);
    }
    let text = reply.trim_ascii();
    ensure!(
        text.strip_prefix(b"+").unwrap_or(text) == b"OK",
        "cannot use namespace '{name}': the server answered '{}'",
        String::from_utf8_lossy(text)
    );
    Ok(())
}
