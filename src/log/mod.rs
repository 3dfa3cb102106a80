//! The append-only log.
pub mod control;
pub mod disk;
pub mod frame;
pub mod reader;
pub mod record;
pub mod segment;
pub mod storage;
pub mod writer;
