//! onced
pub mod address;
pub mod cli;
pub mod limits;
pub mod store;
pub mod time;
