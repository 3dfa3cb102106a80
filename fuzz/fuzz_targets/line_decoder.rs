//! Any bytes as requests of the line protocol: no panic, and the same requests however the
//! bytes arrive. The first byte of the input says in pieces of how many bytes.

#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((&piece, bytes)) = bytes.split_first()
        && bytes.first() != Some(&b'*')
    {
        pieces::agree(bytes, usize::from(piece));
    }
});
