//! Any text of a script: it is recognised or not, whatever blanks and comments stand around it, and nothing that
//! comes to a script's words makes it the same one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use onced::command::scripts::Script;
use onced::limits::SCRIPT_BYTES_MAX;

fuzz_target!(|text: &[u8]| {
    let script = Script::of(text);
    let around = [b" --[[ ]] -- \n", text, b"\r\n--"].concat();
    if around.len() <= SCRIPT_BYTES_MAX {
        assert_eq!(Script::of(&around), script);
    }
    if script.is_some() {
        for more in [&b"\nreturn"[..], b"\n+", b"\nredis", b"\n\\", b"\n'"] {
            assert_eq!(Script::of(&[text, more].concat()), None);
        }
    }
});
