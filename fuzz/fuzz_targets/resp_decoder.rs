//! Any bytes as RESP requests: no panic, whatever arrives.
//!
//! For now it reads them as the decimal numbers that RESP's lengths are written in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use onced::time::parse_u64;

fuzz_target!(|bytes: &[u8]| {
    for word in bytes.split(|&b| matches!(b, b'*' | b'$' | b'\r' | b'\n')) {
        if let Some(n) = parse_u64(word) {
            assert_eq!(parse_u64(n.to_string().as_bytes()), Some(n));
        }
    }
});
