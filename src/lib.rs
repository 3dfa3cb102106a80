//! onced
pub mod address;
pub mod cli;
pub mod command;
pub mod limits;
pub mod store;
pub mod time;
pub mod wire;
