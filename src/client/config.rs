//! What can be chosen about a client.

use std::time::Duration;

use crate::address::Address;

/// A client's settings.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where the server is.
    pub address: Address,
    /// The namespace that all calls mean. Default: `default`.
    pub namespace: Option<String>,
    /// How long a connection may take to come about. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a call may take, waiting for a connection included, but not what it is to be held. Also how
    /// long a server may be silent that owes a reply, before its connection is given up. Default 10 s.
    pub timeout: Duration,
    /// Calls that may be under way or wait for a connection at a time; further ones wait until there is
    /// a place. Default 1,024.
    pub in_flight_max: usize,
    /// The first pause after a connection broke or did not come about; each next one is twice as
    /// long. Between half of it and all of it is waited, by chance. Default 50 ms.
    pub backoff_min: Duration,
    /// The longest pause. Default 5 s.
    pub backoff_max: Duration,
    /// Calls that may be held at a time (`WAIT`, `BEGIN … WAIT`), each on a connection of its own; further
    /// ones wait until there is a place. Default 256.
    pub held_max: usize,
    /// Connections of held calls that are kept for the next ones. Default 8.
    pub idle_lanes_max: usize,
}

impl ClientConfig {
    /// The defaults.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            namespace: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            in_flight_max: 1_024,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            held_max: 256,
            idle_lanes_max: 8,
        }
    }
}
