//! The async client: one connection for any number of callers, and work that is done once.
//!
//! A [`Client`] is cheap to clone. All calls of all clones go over one connection, in the order in
//! which they were made, without waiting for each other's replies. It connects when it is first
//! needed, and again, with growing pauses, when the connection breaks. A call that may be held
//! (`WAIT`, `BEGIN … WAIT`) travels on a connection of its own, so that nobody waits behind it.
//!
//! - `config`: what can be chosen; `calls`: the verbs; `answers`: their typed replies
//! - [`run_once`]: the whole life of a record around a piece of work
//! - `renewals`: leases of running work, renewed by a thread beside it
//! - `pipeline`: the shared connection; `lane`: those of held calls; `stream`: any one of them;
//!   `reply`: RESP to values
//!
//! A request whose connection broke before the reply came is not repeated by itself: nobody knows
//! whether it was executed ([`ClientError::Lost`]). [`Client::run_once`] knows which may be.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use onced::client::{Client, First};
//!
//! let client = Client::new("127.0.0.1:6623".parse()?);
//! if client.seen("event-17", Some(Duration::from_secs(60))).await? == First::New {
//!     println!("count it");
//! }
//! # Ok(()) }
//! ```

mod answers;
mod calls;
mod config;
mod lane;
mod pipeline;
mod renewals;
mod reply;
pub mod run_once;
mod stream;

use std::sync::Arc;

pub use answers::{
    Begin, BeginOptions, Claimed, CompleteOptions, Done, Ending, First, Heard, Held, Outcome,
};
pub use config::ClientConfig;
pub use reply::ClientError;
pub use run_once::{Failure, Origin, Ran, RunOnce, RunOnceError, StoreError};

#[cfg(feature = "http")]
pub(crate) use self::run_once::{Claim, Grant};

use self::lane::Lanes;
use self::pipeline::Pipeline;
use self::renewals::Renewals;
use crate::address::Address;

/// A client; its clones share one connection. It lives in the runtime in which it was made.
///
/// While work of [`Client::run_once`] goes on for longer than a third of its lease, there is a thread that
/// renews it, and where the runtime is blocked meanwhile, a second connection.
///
/// The end of the program does not wait for what dropped work has still to say: [`Client::ping`] does.
#[derive(Clone, Debug)]
pub struct Client {
    pipeline: Pipeline,
    lanes: Arc<Lanes>,
    renewals: Arc<Renewals>,
}

impl Client {
    /// A client of the server at this address, with the defaults. Connects with the first call; within a
    /// runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(address: Address) -> Self {
        Self::with(ClientConfig::new(address))
    }

    /// The same with other settings.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn with(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        let pipeline = Pipeline::start(Arc::clone(&config));
        let renewals = Renewals::new(Arc::clone(&config), pipeline.clone());
        Self {
            pipeline,
            lanes: Arc::new(Lanes::new(config)),
            renewals: Arc::new(renewals),
        }
    }
}
