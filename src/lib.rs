//! onced
pub mod address;
pub mod cli;
pub mod time;
