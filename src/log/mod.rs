//! The append-only log.
pub mod compact;
pub mod control;
pub mod disk;
pub mod frame;
pub mod mend;
pub mod reader;
pub mod record;
pub mod segment;
pub mod storage;
pub mod writer;
