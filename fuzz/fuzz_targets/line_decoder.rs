//! Any bytes as requests of the line protocol: no panic, whatever arrives.
//!
//! For now it reads them as durations, the words of that protocol with a grammar of their own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use onced::time::{DurationWord, parse_duration_ms};

fuzz_target!(|bytes: &[u8]| {
    for word in bytes.split(|&b| matches!(b, b' ' | b'\t' | b'\n')) {
        if let Ok(ms) = parse_duration_ms(word) {
            let printed = DurationWord(ms).to_string();
            assert_eq!(parse_duration_ms(printed.as_bytes()), Ok(ms));
        }
    }
});
