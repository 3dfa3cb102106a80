//! A namespace of the run's own, so that a load leaves nothing on a server that is in use.
//!
//! It is made before the load, entered by each connection, and dropped afterwards, whatever became of the run.
//! A server that is not onced has no such thing: there the keys stay until their window ends.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::protocol::Protocol;
use crate::address::Address;
use crate::cli::remote::Remote;

/// How often a namespace is removed after a run that was given up, and how long after one another.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
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
    pub(super) fn make(server: &Address, timeout: Duration) -> anyhow::Result<Option<Self>> {
        let mut remote = Remote::connect_to(server, timeout)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).context("cannot get random bytes")?;
        let name = format!("bench-{:016x}", u64::from_le_bytes(random));
        // What closes the connection at this is something else, such as a proxy before a Redis.
        let Ok(reply) = remote.request(format!("USE {name}").as_bytes()) else {
            return Ok(None);
        };
        let reply = reply.head;
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

    /// Removes it, with all that is in it. After a run that was given up, what its connections have sent may make
    /// it anew for a moment, so it is looked for until it stays away.
    pub(super) fn remove(self, was_given_up: bool) -> anyhow::Result<()> {
        let looks = if was_given_up { LOOKS } else { 1 };
        let remove = || {
            let mut remote = Remote::connect_to(&self.server, self.timeout)?;
            for look in 0..looks {
                if look > 0 {
                    sleep(BETWEEN_LOOKS);
                }
                let reply = remote.request(format!("NS DROP {} FORCE", self.name).as_bytes())?;
                ensure!(
                    reply.head == b"OK" || look > 0 && reply.head.starts_with(b"ERR NONS"),
                    "the server answered '{}'",
                    String::from_utf8_lossy(&reply.head)
                );
            }
            anyhow::Ok(())
        };
        remove().with_context(|| {
            format!(
                "the load's namespace '{}' stays on {}",
                self.name, self.server
            )
        })
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
