//! The append-only log.
pub mod storage;
