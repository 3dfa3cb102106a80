//! onced
pub mod address;
pub mod cli;
pub mod command;
pub mod config;
pub mod engine;
pub mod limits;
pub mod metrics;
pub mod server;
pub mod store;
pub mod time;
pub mod wire;
