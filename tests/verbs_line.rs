//! Every verb of the line protocol: its answers, and every refusal it can give.
//!
//! Limits are in `limits.rs`, hostile bytes in `hostile.rs`. The last test compares with the
//! command table: a verb without a scenario fails it.

mod common;

use common::scenario::{CLOSED, Step, play_lines, scenarios};
use common::{TestServer, resp_request};
use onced::command::spec::{Home, verbs};

const SEEN_USAGE: &str =
    "ERR ARGS usage: SEEN key [ttl] [SLIDE|FIXED] [FP hex] [AT unixms] [NS name]";
const NO_UNIT: &str = "ERR ARGS a duration needs a unit: 250ms, 10s, 5m, 24h or 7d (is a bare number seconds or milliseconds?)";
const NO_DURATION: &str =
    "ERR ARGS not a duration: write a whole number and a unit, such as 250ms, 10s, 5m, 24h or 7d";
const OVERFLOW: &str = "ERR RANGE the duration is too long to be represented";
const TOO_LONG: &str = "ERR RANGE the longest ttl here is 365d";
const ZERO: &str = "ERR RANGE a ttl is at least 1ms";
const NEGATIVE: &str = "ERR RANGE a ttl is not negative";
const EMPTY_KEY: &str = "ERR ARGS a key has at least one byte";
const BAD_FP: &str = "ERR ARGS FP takes 1 to 32 hex digits";
const BAD_NAME: &str =
    "ERR ARGS a namespace's name is 1 to 64 of the characters A-Z a-z 0-9 _ . : -";
const FULL: &str = "ERR FULL no room: namespace 'small' has its MAXKEYS of 2; nothing was stored";
const NS_USAGE: &str = "ERR ARGS usage: NS LIST, NS INFO name, NS SET name [options], NS PURGE name [FORCE], NS DROP name [FORCE]";
const BAD_ESCAPE: &str = r#"ERR SYNTAX unknown escape; known are \" \\ \n \r \t \xHH"#;

scenarios! { play_lines;
    seen_answers_new_then_dup: &[
        ("SEEN order-17 60s", "NEW"),
        ("SEEN order-17 60s", "DUP"),
        ("seen order-17", "DUP"),
        ("SEEN order-18", "NEW"),
        ("TTL order-18", "~3600000"),
        ("SEEN order-19 -", "NEW"),
        ("TTL order-19", "~3600000"),
        ("SEEN order-20 1ms", "NEW"),
        ("\tSEEN   order-17\t60s  ", "DUP"),
        ("SEEN order-17 60s\r", "DUP"),
    ];
    seen_takes_every_unit: &[
        ("SEEN a 900000ms", "NEW"), ("TTL a", "~900000"),
        ("SEEN b 900s", "NEW"), ("TTL b", "~900000"),
        ("SEEN c 15m", "NEW"), ("TTL c", "~900000"),
        ("SEEN d 24h", "NEW"), ("TTL d", "~86400000"),
        ("SEEN e 365D", "NEW"), ("TTL e", "~31536000000"),
    ];
    seen_refuses_lives_that_are_none: &[
        ("SEEN k 60", NO_UNIT),
        ("SEEN k 0", NO_UNIT),
        ("SEEN k 60x", NO_DURATION),
        ("SEEN k banana", NO_DURATION),
        ("SEEN k 1.5h", NO_DURATION),
        ("SEEN k 1h30m", NO_DURATION),
        ("SEEN k \"\"", NO_DURATION),
        ("SEEN k 0s", ZERO),
        ("SEEN k 0ms", ZERO),
        ("SEEN k -1s", NEGATIVE),
        ("SEEN k -1", NEGATIVE),
        ("SEEN k 366d", TOO_LONG),
        ("SEEN k 31536000001ms", TOO_LONG),
        ("SEEN k 9223372036854775807ms", TOO_LONG),
        ("SEEN k 9223372036854775808ms", TOO_LONG),
        ("SEEN k 18446744073709551615ms", TOO_LONG),
        ("SEEN k 18446744073709551616ms", OVERFLOW),
        ("SEEN k 213503982335d", OVERFLOW),
        ("PEEK k", "N"),
    ];
    seen_refuses_words_that_do_not_fit: &[
        ("SEEN", SEEN_USAGE),
        ("SEEN k 60s SLIDE FP a AT {now} NS default more", SEEN_USAGE),
        ("SEEN \"\" 60s", EMPTY_KEY),
        ("SEEN k 60s WHAT", "ERR ARGS unknown option 'WHAT'; expected SLIDE, FIXED, FP hex, AT unixms or NS name"),
        ("SEEN k 60s 60s", "ERR ARGS unknown option '60s'; expected SLIDE, FIXED, FP hex, AT unixms or NS name"),
        ("SEEN k 60s {x*50}", "ERR ARGS unknown option '{x*40}'...; expected SLIDE, FIXED, FP hex, AT unixms or NS name"),
        (r#"SEEN k 60s "\x00\n""#, r"ERR ARGS unknown option '\x00\n'; expected SLIDE, FIXED, FP hex, AT unixms or NS name"),
        ("SEEN k 60s SLIDE SLIDE", "ERR ARGS 'SLIDE' is given twice, or contradicts another option"),
        ("SEEN k SLIDE FIXED", "ERR ARGS 'FIXED' is given twice, or contradicts another option"),
        ("SEEN k FP a FP a", "ERR ARGS 'FP' is given twice, or contradicts another option"),
        ("SEEN k AT {now} AT {now}", "ERR ARGS 'AT' is given twice, or contradicts another option"),
        ("SEEN k NS default NS default", "ERR ARGS 'NS' is given twice, or contradicts another option"),
        ("SEEN k 60s FP", "ERR ARGS 'FP' needs a value"),
        ("SEEN k AT", "ERR ARGS 'AT' needs a value"),
        ("SEEN k ns", "ERR ARGS 'ns' needs a value"),
        ("PEEK k", "N"),
    ];
    seen_judges_fingerprints: &[
        ("SEEN k 60s FP xyz", BAD_FP),
        ("SEEN k 60s FP \"\"", BAD_FP),
        ("SEEN k 60s FP -1", BAD_FP),
        ("SEEN k 60s FP {0*33}", BAD_FP),
        ("SEEN k 60s FP 0a", "NEW"),
        ("SEEN k 60s FP 0a", "DUP"),
        ("SEEN k 60s FP 0A", "DUP"),
        ("SEEN k 60s FP a", "MISMATCH"),
        ("SEEN k 60s", "DUP"),
        ("SEEN k 1h SLIDE FP b", "MISMATCH"),
        ("TTL k", "~60000"),
        ("INSPECT k", "ROWS 3 | state seen | expires_in_ms ~60000 | fingerprint 0a"),
        ("SEEN long 60s FP {f*32}", "NEW"),
        ("INSPECT long", "ROWS 3 | state seen | expires_in_ms ~60000 | fingerprint {f*32}"),
        ("SEEN plain 60s", "NEW"),
        ("SEEN plain 60s FP a", "DUP"),
        ("INSPECT plain", "ROWS 2 | state seen | expires_in_ms ~60000"),
    ];
    one_is_told_to_run_and_the_others_what_came_of_it: &[
        ("BEGIN job", "RUN {token} 30000 1"),
        ("BEGIN job", "BUSY ~30001"),
        ("PEEK job other", "BN"),
        ("INSPECT job", "ROWS 5 | state in_progress | expires_in_ms ~86430000 | age_ms … | attempt 1 | lease_ms ~30000"),
        ("SEEN job", "DUP"),
        ("TOUCH job 5m", "ERR BUSY the key holds a record in progress, whose window its lease decides: RENEW extends it"),
        ("RENEW job {token}", "OK 30000"),
        ("RENEW job {token} LEASE 5m", "OK 300000"),
        ("RENEW job {token}", "OK 300000"),
        ("COMPLETE job {token} CODE 201 LEN 5\nhello", "OK"),
        ("BEGIN job", "DONE 201 5 | hello"),
        ("WAIT job", "DONE 201 5 | hello"),
        ("PEEK job", "C"),
        ("TTL job", "~86400000"),
        ("INSPECT job", "ROWS 6 | state completed | expires_in_ms ~86400000 | age_ms … | attempt 1 | code 201 | size 5"),
        // The reply was lost and the request comes again; then with something else.
        ("COMPLETE job {token} CODE 201 LEN 5\nhello", "OK"),
        ("COMPLETE job {token} CODE 201 BODY hello", "OK"),
        ("COMPLETE job {token} CODE 200 BODY hello", "STALE"),
        ("COMPLETE job {token} CODE 201 BODY other", "STALE"),
        ("RENEW job {token}", "STALE"),
        ("FAIL job {token} RETRY", "STALE"),
        ("FAIL job {token} FINAL CODE 201 BODY hello", "STALE"),
        ("TOUCH job 5m", "OK"), ("TTL job", "~300000"),
        ("FORGET job", "OK 1"),
        ("COMPLETE job {token}", "GONE"),
        ("BEGIN job", "RUN {token} 30000 1"),
        ("STATS default", "ROWS 30 |…| records_begun 2 | records_busy 1 | records_replayed 1 | records_completed 1 | records_failed 0 | records_released 0 | records_stale 6"),
    ];
    what_failed_is_tried_again_or_is_the_answer: &[
        ("BEGIN job LEASE 10s TTL 1h OWNER a", "RUN {token} 10000 1"),
        ("BEGIN job OWNER a", "RUN {token} ~10000 1"),
        ("BEGIN job OWNER b", "BUSY ~10001"),
        ("FAIL job {token} RETRY", "OK"),
        ("FAIL job {token} RETRY", "OK"),
        ("PEEK job", "R"), ("WAIT job", "FREE"),
        ("INSPECT job", "ROWS 4 | state released | expires_in_ms ~3610000 | age_ms … | attempt 1"),
        ("RENEW job {token}", "STALE"), ("COMPLETE job {token}", "STALE"),
        ("BEGIN job", "RUN {token} 30000 2"),
        ("COMPLETE job {older}", "STALE"), ("FAIL job {older} RETRY", "STALE"), ("FAIL job {older} FINAL", "STALE"), ("RENEW job {older}", "STALE"),
        ("FAIL job {token} FINAL CODE 402 LEN 0\n", "OK"),
        ("FAIL job {token} FINAL CODE 402", "OK"),
        ("BEGIN job", "FAILED 402 0 | "), ("WAIT job TIMEOUT 1s", "FAILED 402 0 | "),
        ("PEEK job", "F"), ("COMPLETE job {token}", "STALE"), ("FAIL job {token} RETRY", "STALE"),
        ("COMPLETE none {token}", "GONE"), ("FAIL none {token} RETRY", "GONE"), ("FAIL none {token} FINAL", "GONE"), ("RENEW none {token}", "GONE"),
        ("WAIT none", "FREE"),
        ("COMPLETE none {token} ADOPT CODE 7 TTL 5m FP a", "OK"),
        ("BEGIN none FP a", "DONE 7 0 | "), ("BEGIN none FP b", "MISMATCH"), ("TTL none", "~300000"),
        // A token that this server has not given yet is adopted by nobody.
        ("COMPLETE never 9007199254740991 ADOPT", "GONE"), ("PEEK never", "N"),
    ];
    a_key_that_was_only_seen_is_done: &[
        ("SEEN k 60s FP a", "NEW"),
        ("BEGIN k", "DONE 0 0 | "), ("BEGIN k WAIT 1s FP b", "MISMATCH"), ("WAIT k", "DONE 0 0 | "),
        ("COMPLETE k 1", "GONE"), ("FAIL k 1 RETRY", "GONE"), ("FAIL k 1 FINAL", "GONE"), ("RENEW k 1", "GONE"),
        ("COMPLETE k 1 ADOPT", "GONE"), ("COMPLETE k 1 FP b", "MISMATCH"), ("PEEK k", "D"),
    ];
    fingerprints_of_records_are_judged_first: &[
        ("BEGIN k FP a1", "RUN {token} 30000 1"),
        ("BEGIN k FP b2", "MISMATCH"), ("BEGIN k FP a1", "BUSY ~30001"), ("SEEN k FP b2", "MISMATCH"),
        ("COMPLETE k {token} FP b2 BODY x", "MISMATCH"),
        ("FAIL k {token} RETRY", "OK"),
        ("BEGIN k FP b2", "MISMATCH"), ("BEGIN k", "RUN {token} 30000 2"),
        ("COMPLETE k {token} FP a1 BODY x", "OK"), ("BEGIN k FP b2", "MISMATCH"), ("BEGIN k FP a1", "DONE 0 1 | x"),
        ("INSPECT k", "ROWS 7 |…| fingerprint a1 |…"),
        ("BEGIN j", "RUN {token} 30000 1"), ("COMPLETE j {token} FP c3", "OK"), ("BEGIN j FP d4", "MISMATCH"),
    ];
    ttls_of_records_count_from_their_end: &[
        ("BEGIN a TTL 5m LEASE 1h", "RUN {token} 3600000 1"), ("TTL a", "~3900000"),
        ("COMPLETE a {token}", "OK"), ("TTL a", "~300000"),
        ("BEGIN b TTL 5m", "RUN {token} 30000 1"), ("COMPLETE b {token} TTL 10m", "OK"), ("TTL b", "~600000"),
        ("BEGIN c TTL -", "RUN {token} 30000 1"), ("COMPLETE c {token} TTL -", "OK"), ("TTL c", "~86400000"),
        ("BEGIN d TTL 5m", "RUN {token} 30000 1"), ("FAIL d {token} FINAL", "OK"), ("TTL d", "~300000"),
        // Seldom: a namespace that lets nothing live that long.
        ("NS SET short MAXTTL 1m", "OK"), ("USE short", "OK"),
        ("BEGIN e", "RUN {token} 30000 1"), ("TTL e", "~90000"),
        ("BEGIN f TTL 2m", "ERR RANGE the longest ttl here is 1m"), ("COMPLETE e {token} TTL 2m", "ERR RANGE the longest ttl here is 1m"),
        ("COMPLETE e {token}", "OK"), ("TTL e", "~60000"),
        ("BEGIN g NS default", "RUN {token} 30000 1"), ("COMPLETE g {token} NS default BODY x", "OK"), ("WAIT g NS default", "DONE 0 1 | x"),
        ("RENEW g {token} NS nowhere", "ERR NONS no namespace 'nowhere'; make it with NS SET nowhere"),
    ];
    many_records_are_begun_and_ended_at_once: &[
        ("MBEGIN 1h 10s a", "N:{token}"),
        ("MBEGIN 1h 10s b b a", "N:… D B"),
        ("SEEN m", "NEW"), ("BEGIN c", "RUN {token} 30000 1"), ("FAIL c {token} FINAL", "OK"), ("BEGIN d", "RUN {token} 30000 1"), ("COMPLETE d {token}", "OK"),
        ("MBEGIN - - m c d", "D F C"), ("TTL a", "~3610000"),
        ("MBEGIN 1h 10s e", "N:{token}"), ("MCOMPLETE e {token} e {token} e {older} none {token}", "OOSG"), ("PEEK e", "C"),
        ("MBEGIN 1h 10s f", "N:{token}"), ("MFAIL f {token} f {token} e {token} none 1", "OOSG"), ("PEEK f", "R"),
        ("MBEGIN 1h 10s f", "N:{token}"), ("INSPECT f", "ROWS 5 |…| attempt 2 |…"),
        ("NS SET careful UNSURE REPORT", "OK"), ("USE careful", "OK"), ("MBEGIN 1h 10s x", "U:…"), ("BEGIN y", "UNSURE {token} 30000 1"), ("COMPLETE y {token}", "OK"),
    ];
    records_in_progress_are_spared: &[
        ("USE jobs", "OK"), ("BEGIN k LEASE 1h", "RUN {token} 3600000 1"), ("BEGIN l", "RUN {token} 30000 1"), ("COMPLETE l {token}", "OK"), ("SEEN m", "NEW"),
        ("NS DROP jobs", "ERR BUSY namespace 'jobs' has records in progress, which only FORCE removes"),
        ("NS PURGE jobs", "OK"), ("PEEK k l m", "BNN"), ("TTL k", "~90000000"), ("RENEW k {older}", "OK 3600000"),
        ("NS INFO jobs", "ROWS 30 |…| keys 1 |…"),
        ("NS PURGE jobs WHAT", "ERR ARGS unknown option 'WHAT'; expected FORCE"), ("NS DROP jobs FORCE more", NS_USAGE),
        ("NS PURGE jobs FORCE", "OK"), ("PEEK k", "N"), ("RENEW k {older}", "GONE"),
        ("BEGIN k", "RUN {token} 30000 1"), ("NS DROP jobs FORCE", "OK"), ("COMPLETE k {token}", "GONE"),
        ("BEGIN k", "RUN {token} 30000 1"), ("FAIL k {token} RETRY", "OK"), ("NS DROP jobs", "OK"),
    ];
    records_refuse_words_that_do_not_fit: &[
        ("BEGIN", "ERR ARGS usage: BEGIN key [LEASE d] [TTL d] [FP hex] [OWNER id] [WAIT d] [NS name]"),
        ("BEGIN \"\"", EMPTY_KEY),
        ("BEGIN k LEASE 30", NO_UNIT), ("BEGIN k LEASE -1s", NEGATIVE), ("BEGIN k LEASE 0s", ZERO),
        ("BEGIN k LEASE 24h WAIT 0s TTL 366d", TOO_LONG),
        ("BEGIN k LEASE 86400001ms", "ERR RANGE the longest lease here is 1d"),
        ("RENEW k 1 LEASE 25h", "ERR RANGE the longest lease here is 1d"),
        ("MBEGIN 1h 25h k", "ERR RANGE the longest lease here is 1d"), ("MBEGIN 1h", "ERR ARGS usage: MBEGIN ttl lease key..."),
        ("BEGIN k WAIT 60001ms", "ERR RANGE the longest wait here is 1m"), ("WAIT k TIMEOUT 61s", "ERR RANGE the longest wait here is 1m"),
        ("BEGIN k WAIT 1", NO_UNIT), ("WAIT k TIMEOUT -1s", "ERR RANGE a wait is not negative"), ("WAIT k TIMEOUT 999999999999999d", "ERR RANGE the longest wait here is 1m"),
        ("WAIT k WAIT 1s", "ERR ARGS unknown option 'WAIT'; expected TIMEOUT d or NS name"),
        ("BEGIN k OWNER \"\"", "ERR ARGS OWNER takes 1 to 128 bytes"), ("BEGIN k OWNER {o*129}", "ERR ARGS OWNER takes 1 to 128 bytes"),
        ("BEGIN k WAIT 1s WAIT 2s", "ERR ARGS 'WAIT' is given twice, or contradicts another option"),
        ("BEGIN k CODE 1", "ERR ARGS unknown option 'CODE'; expected LEASE d, TTL d, FP hex, OWNER id, WAIT d or NS name"),
        ("BEGIN k FP x", BAD_FP), ("BEGIN k NS \"a b\"", BAD_NAME),
        ("RENEW k abc", "ERR ARGS a token is the number that RUN told, not 'abc'"), ("COMPLETE k 0", "ERR ARGS a token is the number that RUN told, not '0'"),
        ("FAIL k 9007199254740992 RETRY", "ERR ARGS a token is the number that RUN told, not '9007199254740992'"), ("COMPLETE k -1", "ERR ARGS a token is the number that RUN told, not '-1'"),
        ("COMPLETE k 1 CODE -1", "ERR ARGS CODE takes a number from 0 to 4294967295"), ("COMPLETE k 1 CODE 4294967296", "ERR ARGS CODE takes a number from 0 to 4294967295"),
        ("COMPLETE k 1 BODY a LEN 1\nb", "ERR ARGS there are two bodies: LEN's and BODY's"),
        ("COMPLETE k 1 OWNER a", "ERR ARGS unknown option 'OWNER'; expected CODE n, TTL d, FP hex, ADOPT, NS name, and LEN n at the end, or BODY word"),
        ("COMPLETE k 1 \"LEN\" 5", "ERR ARGS unknown option 'LEN'; expected CODE n, TTL d, FP hex, ADOPT, NS name, and LEN n at the end, or BODY word"),
        ("FAIL k 1", "ERR ARGS usage: FAIL key token RETRY [NS name] | key token FINAL [CODE n] [TTL d] [NS name] [BODY word | LEN n, and the body behind the line]"),
        ("FAIL k 1 MAYBE", "ERR ARGS FAIL key token is followed by RETRY or FINAL, not 'MAYBE'"),
        ("FAIL k 1 RETRY LEN 4\nPING", "ERR ARGS FAIL … RETRY takes no body: nothing is stored"),
        ("FAIL k 1 RETRY CODE 1", "ERR ARGS unknown option 'CODE'; expected NS name"),
        ("MCOMPLETE k", "ERR ARGS usage: MCOMPLETE key token..."), ("MFAIL k 1 l", "ERR ARGS every key is followed by its token"), ("MCOMPLETE k x", "ERR ARGS a token is the number that RUN told, not 'x'"),
        ("PEEK k", "N"),
    ];
    bodies_never_run_as_commands: &[
        ("BEGIN k", "RUN {token} 30000 1"),
        ("COMPLETE k {older} LEN 4\nQUIT", "ERR ARGS a token is the number that RUN told, not '0'"),
        ("COMPLETE k 1 LEN 4\nQUIT", "STALE"),
        ("COMPLETE k 1 WHAT LEN 4\nQUIT", "ERR ARGS unknown option 'WHAT'; expected CODE n, TTL d, FP hex, ADOPT, NS name, and LEN n at the end, or BODY word"),
        ("COMPLETE k LEN 4\nQUIT", "ERR ARGS usage: COMPLETE key token [CODE n] [TTL d] [FP hex] [ADOPT] [NS name] [BODY word | LEN n, and the body behind the line]"),
        ("BEGIN k LEN 4\nQUIT", "ERR ARGS unknown option 'LEN'; expected LEASE d, TTL d, FP hex, OWNER id, WAIT d or NS name"),
        ("complete k {token} len 4\r\nQUIT\r", "OK"),
        ("BEGIN k", "DONE 0 4 | QUIT"),
        ("FAIL k {token} FINAL LEN 262145\n{x*262145}", "ERR TOOBIG the body has 262145 bytes; the longest is 262144"),
        ("PING", "PONG"),
        ("COMPLETE k {token} LEN four", "ERR ARGS LEN takes how many bytes the body has; closing"), ("", CLOSED),
    ];
    a_body_of_another_length_closes: &[
        ("BEGIN k", "RUN {token} 30000 1"),
        ("COMPLETE k {token} LEN 3\nQUIT", "ERR SYNTAX the body does not end where LEN said it would"), ("", CLOSED),
    ];
    a_body_that_nobody_waits_for_closes: &[
        ("COMPLETE k 1 LEN 16777217", "ERR TOOBIG the body has 16777217 bytes; the longest is 262144"), ("", CLOSED),
    ];
    a_fixed_window_stays_and_a_sliding_one_moves: &[
        ("SEEN k 60s", "NEW"),
        ("SEEN k 1h", "DUP"),
        ("SEEN k 1h FIXED", "DUP"),
        ("TTL k", "~60000"),
        ("SEEN k 1h SLIDE", "DUP"),
        ("TTL k", "~3600000"),
        ("SEEN k 1s SLIDE", "DUP"),
        ("TTL k", "~3600000"),
        ("NS SET sliding MODE SLIDE", "OK"),
        ("USE sliding", "OK"),
        ("SEEN k 60s", "NEW"),
        ("SEEN k 1h FIXED", "DUP"),
        ("TTL k", "~60000"),
        ("MSEEN 30m k k", "DD"),
        ("TTL k", "~1800000"),
        ("SEEN k 1h", "DUP"),
        ("TTL k", "~3600000"),
    ];
    an_event_has_its_own_time: &[
        ("NS SET default COVERED", "OK"),
        ("SEEN ahead 60s AT {now+120000}", "NEW"),
        ("TTL ahead", "~180000"),
        ("SEEN far 60s AT {now+299000}", "NEW"),
        ("SEEN farther 60s AT {now+302000}", "ERR RANGE AT lies more than 5m ahead of the server's clock"),
        ("SEEN farthest 60s AT 18446744073709551615", "ERR RANGE AT lies more than 5m ahead of the server's clock"),
        ("SEEN beyond 60s AT 18446744073709551616", "ERR ARGS AT takes a moment in Unix milliseconds"),
        ("SEEN now 60s AT -1", "ERR ARGS AT takes a moment in Unix milliseconds"),
        ("SEEN now 60s AT noon", "ERR ARGS AT takes a moment in Unix milliseconds"),
        ("PEEK farther farthest beyond now", "NNNN"),
        ("SEEN past 60s AT {now-30000}", "NEW"),
        ("TTL past", "~60000"),
        // Nobody can say whether an event that is older than its window was seen in it: that is counted.
        ("STATS default", "ROWS…| unsure 0 |…"),
        ("SEEN old 60s AT {now-61000}", "NEW"),
        ("SEEN old 60s AT {now-61000}", "DUP"),
        ("TTL old", "~60000"),
        ("SEEN oldest 60s AT 0", "NEW"),
        ("STATS default", "ROWS…| unsure 2 |…"),
    ];
    mseen_answers_a_letter_per_key: &[
        ("MSEEN 60s a b b a c", "NNDDN"),
        ("MSEEN - a d", "DN"),
        ("TTL d", "~3600000"),
        ("MSEEN", "ERR ARGS usage: MSEEN ttl key..."),
        ("MSEEN 60s", "ERR ARGS usage: MSEEN ttl key..."),
        ("MSEEN e f", NO_DURATION),
        ("MSEEN 60 e", NO_UNIT),
        ("MSEEN 0s e", ZERO),
        ("MSEEN -1s e", NEGATIVE),
        ("MSEEN 366d e", TOO_LONG),
        ("MSEEN 18446744073709551616ms e", OVERFLOW),
        // All words are checked before the first key is executed.
        ("MSEEN 60s e \"\"", EMPTY_KEY),
        ("MSEEN 60s e {k*8193}", "ERR TOOBIG the key has 8193 bytes; the longest is 8192"),
        ("PEEK e", "N"),
    ];
    peek_changes_nothing: &[
        ("PEEK k", "N"),
        ("PEEK k", "N"),
        ("SEEN k 60s", "NEW"),
        ("PEEK j k j k", "NDND"),
        ("PEEK", "ERR ARGS usage: PEEK key..."),
        ("PEEK k \"\"", EMPTY_KEY),
    ];
    forget_counts_what_was_there: &[
        ("FORGET k", "OK 0"),
        ("MSEEN 60s a b c", "NNN"),
        ("FORGET a b b d", "OK 2"),
        ("PEEK a b c", "NND"),
        ("SEEN a 60s", "NEW"),
        ("FORGET", "ERR ARGS usage: FORGET key..."),
        ("FORGET c \"\"", EMPTY_KEY),
        ("PEEK c", "D"),
    ];
    touch_sets_the_end: &[
        ("TOUCH k 60s", "NIL"),
        ("PEEK k", "N"),
        ("SEEN k 60s", "NEW"),
        ("TOUCH k 1h", "OK"), ("TTL k", "~3600000"),
        ("TOUCH k 60s", "OK"), ("TTL k", "~60000"),
        ("TOUCH k 30s GT", "OK"), ("TTL k", "~60000"),
        ("touch k 5m gt", "OK"), ("TTL k", "~300000"),
        ("TOUCH k -", "OK"), ("TTL k", "~3600000"),
        ("TOUCH", "ERR ARGS usage: TOUCH key ttl [GT] [NS name]"),
        ("TOUCH k", "ERR ARGS usage: TOUCH key ttl [GT] [NS name]"),
        ("TOUCH k 1s GT NS default more", "ERR ARGS usage: TOUCH key ttl [GT] [NS name]"),
        ("TOUCH k 60", NO_UNIT),
        ("TOUCH k soon", NO_DURATION),
        ("TOUCH k 0s", ZERO),
        ("TOUCH k -1s", NEGATIVE),
        ("TOUCH k 366d", TOO_LONG),
        ("TOUCH k 18446744073709551616ms", OVERFLOW),
        ("TOUCH \"\" 60s", EMPTY_KEY),
        ("TOUCH k 60s GT GT", "ERR ARGS 'GT' is given twice, or contradicts another option"),
        ("TOUCH k 60s NS a NS", "ERR ARGS 'NS' is given twice, or contradicts another option"),
        ("TOUCH k 60s LT", "ERR ARGS unknown option 'LT'; expected GT or NS name"),
        ("TOUCH k 60s NS", "ERR ARGS 'NS' needs a value"),
        ("TTL k", "~3600000"),
    ];
    ttl_tells_what_is_left: &[
        ("TTL k", "NIL"),
        ("SEEN k 60s", "NEW"),
        ("TTL k", "~60000"),
        ("TTL", "ERR ARGS usage: TTL key [NS name]"),
        ("TTL k NS default more", "ERR ARGS usage: TTL key [NS name]"),
        ("TTL \"\"", EMPTY_KEY),
        ("TTL k WHAT", "ERR ARGS unknown option 'WHAT'; expected NS name"),
        ("TTL k NS", "ERR ARGS 'NS' needs a value"),
    ];
    inspect_tells_what_is_known: &[
        ("INSPECT k", "NIL"),
        ("SEEN k 60s", "NEW"),
        ("INSPECT k", "ROWS 2 | state seen | expires_in_ms ~60000"),
        ("INSPECT", "ERR ARGS usage: INSPECT key [NS name]"),
        ("INSPECT k NS default more", "ERR ARGS usage: INSPECT key [NS name]"),
        ("INSPECT \"\"", EMPTY_KEY),
        ("INSPECT k WHAT", "ERR ARGS unknown option 'WHAT'; expected NS name"),
        ("INSPECT k NS", "ERR ARGS 'NS' needs a value"),
    ];
    a_request_may_name_its_namespace: &[
        ("SEEN k 60s NS other", "ERR NONS no namespace 'other'; make it with NS SET other"),
        ("TOUCH k 60s NS other", "ERR NONS no namespace 'other'; make it with NS SET other"),
        ("TTL k NS other", "ERR NONS no namespace 'other'; make it with NS SET other"),
        ("INSPECT k NS other", "ERR NONS no namespace 'other'; make it with NS SET other"),
        ("NS SET other TTL 2h", "OK"),
        ("SEEN k NS other", "NEW"),
        ("TTL k NS other", "~7200000"),
        ("TOUCH k 1h NS other GT", "OK"),
        ("INSPECT k NS other", "ROWS 2 | state seen | expires_in_ms ~7200000"),
        ("PEEK k", "N"),
        ("TTL k", "NIL"),
        ("SEEN k 60s NS default", "NEW"),
        ("SEEN k 60s", "DUP"),
        ("SEEN k NS \"\"", BAD_NAME),
        ("SEEN k NS \"a b\"", BAD_NAME),
        ("SEEN k NS a/b", BAD_NAME),
        ("SEEN k NS {n*65}", BAD_NAME),
        ("TTL k NS é", BAD_NAME),
        ("TOUCH k 1s NS a=b", BAD_NAME),
        ("INSPECT k NS *", BAD_NAME),
    ];
    use_chooses_and_makes_a_namespace: &[
        ("SEEN k 60s", "NEW"),
        ("USE other", "OK"),
        ("SEEN k 60s", "NEW"),
        ("USE default", "OK"),
        ("SEEN k 60s", "DUP"),
        ("USE Other", "OK"),
        ("SEEN k 60s", "NEW"),
        ("USE :A-z0_9.", "OK"), ("SEEN k 60s NS :A-z0_9.", "NEW"), ("STATS :A-z0_9.", "ROWS …"),
        ("USE", "ERR ARGS usage: USE name"),
        ("USE a b", "ERR ARGS usage: USE name"),
        ("USE \"\"", BAD_NAME),
        ("USE a=b", BAD_NAME),
        ("NS LIST", "ROWS 4 | :A-z0_9. keys=1 | Other keys=1 | default keys=1 | other keys=1"),
    ];
    ns_makes_sets_and_tells: &[
        ("NS LIST", "ROWS 1 | default keys=0"),
        ("NS SET plain", "OK"),
        ("NS INFO plain", "ROWS 30 | name plain | ttl 1h | maxttl 365d | mode FIXED | maxkeys 0 | full REJECT | key_form EXACT | unsure_policy NEW | covered_since_ms … | unsure_until_ms 0 | keys 0 | bytes … | new 0 | dup 0 | mismatch 0 | unsure 0 | refused 0 | refused_memory 0 | refused_keys 0 | refused_disk 0 | expired 0 | evicted 0 | hit_rate 0.0000 | records_begun 0 | records_busy 0 | records_replayed 0 | records_completed 0 | records_failed 0 | records_released 0 | records_stale 0"),
        ("ns set all ttl 10m maxttl 20m mode slide maxkeys 5 full evict", "OK"),
        ("NS INFO all", "ROWS 30 | name all | ttl 10m | maxttl 20m | mode SLIDE | maxkeys 5 | full EVICT |…"),
        // What is not named stays.
        ("NS SET all MODE FIXED", "OK"),
        ("NS INFO all", "ROWS 30 | name all | ttl 10m | maxttl 20m | mode FIXED | maxkeys 5 | full EVICT |…"),
        ("NS SET all FULL REJECT MAXKEYS 0", "OK"),
        ("NS INFO all", "ROWS 30 | name all | ttl 10m | maxttl 20m | mode FIXED | maxkeys 0 | full REJECT |…"),
        ("NS LIST", "ROWS 3 | all keys=0 | default keys=0 | plain keys=0"),
        ("USE all", "OK"),
        ("SEEN k", "NEW"), ("TTL k", "~600000"),
        ("SEEN j 20m", "NEW"),
        ("SEEN i 21m", "ERR RANGE the longest ttl here is 20m"),
        ("MSEEN 21m i", "ERR RANGE the longest ttl here is 20m"),
        ("TOUCH k 21m", "ERR RANGE the longest ttl here is 20m"),
        ("NS SET default TTL 2h", "OK"),
        ("USE default", "OK"),
        ("SEEN k", "NEW"), ("TTL k", "~7200000"),
    ];
    an_answer_is_unsure_where_the_memory_does_not_reach: &[
        // The server started a moment ago, so an hour is more than it can know of.
        ("SEEN k 1h", "NEW"),
        ("MSEEN 1h k l", "DN"),
        ("STATS default", "ROWS…| new 2 | dup 1 | mismatch 0 | unsure 2 |…"),
        ("NS SET default unsure report", "OK"),
        ("NS INFO default", "ROWS…| unsure_policy REPORT | covered_since_ms 1… | unsure_until_ms 0 |…"),
        ("SEEN a 1h", "UNSURE"),
        ("SEEN a 1h", "DUP"),
        ("SEEN b 1h SLIDE FP 0a", "UNSURE"),
        ("SEEN b 1h FP 0b", "MISMATCH"),
        ("MSEEN 1h a c c d", "DUDU"),
        ("PEEK a b c d e", "DDDDN"),
        ("STATS default", "ROWS…| new 6 | dup 4 | mismatch 1 | unsure 6 |…"),
        // What is made while the server runs may have been there before it.
        ("NS SET later UNSURE REPORT", "OK"),
        ("SEEN k NS later", "UNSURE"),
        ("NS SET later COVERED", "OK"),
        ("NS INFO later", "ROWS…| unsure_policy REPORT | covered_since_ms 0 | unsure_until_ms 0 |…"),
        ("SEEN l NS later", "NEW"),
        ("SEEN old 60s AT {now-61000} NS later", "UNSURE"),
        ("NS SET later KEYS DIGEST", "ERR RANGE…"),
        ("STATS later", "ROWS…| new 3 | dup 0 | mismatch 0 | unsure 2 |…"),
        ("NS PURGE later", "OK"),
        ("SEEN l NS later", "UNSURE"),
        ("NS SET later COVERED UNSURE NEW", "OK"),
        ("SEEN m NS later", "NEW"),
        ("NS PURGE later", "OK"),
        ("NS SET later KEYS DIGEST", "OK"),
        ("NS INFO later", "ROWS…| key_form DIGEST | unsure_policy NEW | covered_since_ms 1…"),
        ("NS SET sure COVERED KEYS DIGEST UNSURE REPORT", "OK"),
        ("SEEN k NS sure", "NEW"),
        ("NS DROP sure", "OK"),
        ("NS SET sure UNSURE REPORT", "OK"),
        ("SEEN k NS sure", "UNSURE"),
    ];
    what_was_evicted_is_missing_until_its_window_has_ended: &[
        ("NS SET small COVERED MAXKEYS 2 FULL EVICT UNSURE REPORT", "OK"),
        ("USE small", "OK"),
        ("MSEEN 1h a b", "NN"),
        ("NS INFO small", "ROWS…| unsure_until_ms 0 |…| evicted 0 |…"),
        // The key that displaces another was asked when both were still there.
        ("SEEN c 1h", "NEW"),
        ("NS INFO small", "ROWS…| covered_since_ms 0 | unsure_until_ms 1…| evicted 1 |…"),
        ("SEEN d 1h", "UNSURE"),
        ("NS SET small COVERED", "OK"),
        ("NS INFO small", "ROWS…| unsure_until_ms 0 |…"),
        ("MSEEN 1h e f", "NU"),
    ];
    ns_refuses_what_does_not_fit: &[
        ("NS", "ERR ARGS usage: NS LIST | INFO name | SET name [TTL d] [MAXTTL d] [MODE FIXED|SLIDE] [MAXKEYS n] [FULL REJECT|EVICT] [KEYS EXACT|DIGEST] [UNSURE NEW|REPORT] [COVERED] | PURGE name [FORCE] | DROP name [FORCE]"),
        ("NS SET p TTL 1h MAXTTL 2h MODE FIXED MAXKEYS 1 FULL EVICT KEYS EXACT UNSURE NEW COVERED MORE", "ERR ARGS usage: NS LIST | INFO…"),
        ("NS LIST all", NS_USAGE),
        ("NS INFO", NS_USAGE),
        ("NS SET", NS_USAGE),
        ("NS WHAT", NS_USAGE),
        ("NS WHAT p", NS_USAGE),
        ("NS INFO p more", NS_USAGE),
        ("NS PURGE p FORCED", "ERR ARGS unknown option 'FORCED'; expected FORCE"),
        ("NS INFO \"\"", BAD_NAME),
        ("NS SET a=b", BAD_NAME),
        ("NS SET {n*65}", BAD_NAME),
        ("NS PURGE a=b", BAD_NAME),
        ("NS DROP a=b", BAD_NAME),
        ("NS INFO p", "ERR NONS no namespace 'p'; make it with NS SET p"),
        ("NS PURGE p", "ERR NONS no namespace 'p'; make it with NS SET p"),
        ("NS DROP p", "ERR NONS no namespace 'p'; make it with NS SET p"),
        ("NS SET p TTL 2h MAXTTL 1h", "ERR RANGE the namespace's ttl (2h) would exceed its longest (1h)"),
        ("NS SET p TTL 366d", "ERR RANGE the server's longest ttl is 365d"),
        ("NS SET p MAXTTL 366d", "ERR RANGE the server's longest ttl is 365d"),
        ("NS SET p TTL 0s", ZERO),
        ("NS SET p TTL 60", NO_UNIT),
        ("NS SET p TTL -", NEGATIVE),
        ("NS SET p MAXTTL -1s", NEGATIVE),
        ("NS SET p MAXTTL 18446744073709551616ms", OVERFLOW),
        ("NS SET p MODE BOTH", "ERR ARGS MODE is FIXED or SLIDE"),
        ("NS SET p FULL MAYBE", "ERR ARGS FULL is REJECT or EVICT"),
        ("NS SET p KEYS HASHED", "ERR ARGS KEYS is EXACT or DIGEST"),
        ("NS SET p KEYS", "ERR ARGS 'KEYS' needs a value"),
        ("NS SET p UNSURE MAYBE", "ERR ARGS UNSURE is NEW or REPORT"),
        ("NS SET p UNSURE", "ERR ARGS 'UNSURE' needs a value"),
        ("NS SET p COVERED 1", "ERR ARGS unknown option '1'; expected…"),
        ("NS SET p COVERED TTL 2h MAXTTL 1h", "ERR RANGE the namespace's ttl (2h) would exceed its longest (1h)"),
        ("NS SET p UNSURE NEW UNSURE NEW", "ERR ARGS 'UNSURE' is given twice, or contradicts another option"),
        ("NS SET p COVERED COVERED", "ERR ARGS 'COVERED' is given twice, or contradicts another option"),
        ("NS SET p KEYS DIGEST TTL 2h MAXTTL 1h", "ERR RANGE the namespace's ttl (2h) would exceed its longest (1h)"),
        ("NS SET p MAXKEYS many", "ERR ARGS MAXKEYS takes a number of keys, 0 for no limit"),
        ("NS SET p MAXKEYS -1", "ERR ARGS MAXKEYS takes a number of keys, 0 for no limit"),
        ("NS SET p MAXKEYS 18446744073709551616", "ERR ARGS MAXKEYS takes a number of keys, 0 for no limit"),
        ("NS SET p TTL", "ERR ARGS 'TTL' needs a value"),
        ("NS SET p WHAT", "ERR ARGS unknown option 'WHAT'; expected TTL d, MAXTTL d, MODE FIXED|SLIDE, MAXKEYS n, FULL REJECT|EVICT, KEYS EXACT|DIGEST, UNSURE NEW|REPORT or COVERED"),
        ("NS SET p WHAT 1", "ERR ARGS unknown option 'WHAT'; expected TTL d, MAXTTL d, MODE FIXED|SLIDE, MAXKEYS n, FULL REJECT|EVICT, KEYS EXACT|DIGEST, UNSURE NEW|REPORT or COVERED"),
        ("NS SET p TTL 1s TTL 1s", "ERR ARGS 'TTL' is given twice, or contradicts another option"),
        ("NS SET p MAXTTL 2h MAXTTL 2h", "ERR ARGS 'MAXTTL' is given twice, or contradicts another option"),
        ("NS SET p MODE FIXED MODE SLIDE", "ERR ARGS 'MODE' is given twice, or contradicts another option"),
        ("NS SET p MAXKEYS 1 MAXKEYS 2", "ERR ARGS 'MAXKEYS' is given twice, or contradicts another option"),
        ("NS SET p FULL EVICT FULL EVICT", "ERR ARGS 'FULL' is given twice, or contradicts another option"),
        ("NS SET p KEYS EXACT KEYS EXACT", "ERR ARGS 'KEYS' is given twice, or contradicts another option"),
        // None of these made it.
        ("NS LIST", "ROWS 1 | default keys=0"),
        // A refused change changes nothing.
        ("NS SET p TTL 10m MAXTTL 20m", "OK"),
        ("NS SET p MODE SLIDE TTL 30m", "ERR RANGE the namespace's ttl (30m) would exceed its longest (20m)"),
        ("NS INFO p", "ROWS 30 | name p | ttl 10m | maxttl 20m | mode FIXED |…"),
        // A default that nobody names gives way to a shorter maximum.
        ("NS SET p MAXTTL 5m", "OK"),
        ("NS INFO p", "ROWS 30 | name p | ttl 5m | maxttl 5m |…"),
    ];
    long_keys_may_be_kept_as_digests: &[
        ("NS SET urls KEYS DIGEST TTL 10m", "OK"),
        ("NS INFO urls", "ROWS 30 | name urls | ttl 10m |… | full REJECT | key_form DIGEST |…| keys 0 |…"),
        ("USE urls", "OK"),
        ("SEEN {x*100} FP 0a", "NEW"),
        ("SEEN {x*100} FP 0a", "DUP"),
        ("SEEN {x*100} FP 0b", "MISMATCH"),
        ("INSPECT {x*100}", "ROWS 3 | state seen | expires_in_ms ~600000 | fingerprint 0a"),
        ("SEEN {x*101}", "NEW"),
        ("SEEN order-17", "NEW"),
        ("MSEEN 60s {x*100} {y*8000} {y*8000} order-17 order-18", "DNDDN"),
        ("PEEK {x*100} {x*102} {y*8000} {y*7999}", "DNDN"),
        ("TTL {x*101}", "~600000"),
        ("TOUCH {x*101} 1h", "OK"),
        ("SEEN {x*101} 2h SLIDE", "DUP"),
        ("TTL {x*101}", "~7200000"),
        ("FORGET {x*101} {x*102}", "OK 1"),
        ("SEEN {x*101} 60s", "NEW"),
        // Other namespaces have nothing to do with it.
        ("SEEN {x*100} NS default", "NEW"),
        ("SEEN {x*100} NS default", "DUP"),
        ("STATS urls", "ROWS 30 |…| key_form DIGEST |…| keys 5 |… | new 6 |… | mismatch 1 |…"),
    ];
    the_form_of_keys_changes_without_keys_alone: &[
        ("NS SET urls KEYS DIGEST TTL 10m", "OK"),
        ("USE urls", "OK"),
        ("SEEN {x*100}", "NEW"),
        ("NS SET urls KEYS EXACT", "ERR RANGE namespace 'urls' has keys, whose form cannot change; NS PURGE urls first"),
        // A refused change changes nothing, and what it already is can be named.
        ("NS SET urls KEYS EXACT MAXKEYS 5", "ERR RANGE namespace 'urls' has keys…"),
        ("NS INFO urls", "ROWS 30 |…| maxkeys 0 | full REJECT | key_form DIGEST |…| keys 1 |…"),
        ("NS SET urls KEYS digest MAXKEYS 6", "OK"),
        ("SEEN {x*100}", "DUP"),
        ("NS PURGE urls", "OK"),
        ("NS SET urls keys exact MODE SLIDE TTL 2h MAXTTL 1h", "ERR RANGE the namespace's ttl (2h) would exceed its longest (1h)"),
        ("NS INFO urls", "ROWS 30 |…| key_form DIGEST |…| keys 0 |…| new 1 |…"),
        // The policy stays, the counters begin again.
        ("NS SET urls keys exact MODE SLIDE", "OK"),
        ("NS INFO urls", "ROWS 30 | name urls | ttl 10m | maxttl 365d | mode SLIDE | maxkeys 6 | full REJECT | key_form EXACT | unsure_policy NEW | covered_since_ms … | unsure_until_ms 0 | keys 0 |…| new 0 |…"),
        // The connection goes on in it.
        ("SEEN {x*100}", "NEW"),
        ("MSEEN 60s {x*100} {y*100}", "DN"),
        ("TTL {x*100}", "~600000"),
        ("NS INFO urls", "ROWS 30 |…| key_form EXACT |…| keys 2 |…"),
        ("NS LIST", "ROWS 2 | default keys=0 | urls keys=2"),
        ("NS DROP urls", "OK"),
        ("NS SET default KEYS EXACT", "OK"),
        ("NS SET default KEYS DIGEST", "ERR ARGS KEYS of the default namespace is chosen in the configuration file"),
        ("NS INFO default", "ROWS 30 |…| key_form EXACT |…"),
    ];
    purge_empties_and_drop_removes: &[
        ("USE p", "OK"),
        ("NS SET p TTL 10m", "OK"),
        ("MSEEN 60s a b c", "NNN"),
        ("NS PURGE p", "OK"),
        ("NS INFO p", "ROWS 30 | name p | ttl 10m |… | keys 0 |…"),
        ("PEEK a b c", "NNN"),
        ("MSEEN 60s a b c", "NNN"),
        ("NS DROP p", "OK"),
        ("NS INFO p", "ERR NONS no namespace 'p'; make it with NS SET p"),
        ("NS DROP p", "ERR NONS no namespace 'p'; make it with NS SET p"),
        // The connection still means that name: it is made again, as new.
        ("SEEN a", "NEW"),
        ("TTL a", "~3600000"),
        ("NS LIST", "ROWS 2 | default keys=0 | p keys=1"),
        ("NS DROP default", "ERR ARGS the default namespace stays; NS PURGE default empties it"),
        ("USE default", "OK"),
        ("SEEN a", "NEW"),
        ("NS PURGE default", "OK"),
        ("SEEN a", "NEW"),
    ];
    a_full_namespace_rejects: &[
        ("NS SET small MAXKEYS 2", "OK"),
        ("USE small", "OK"),
        ("MSEEN 60s a b c", "NNE"),
        ("SEEN c 60s", FULL),
        ("SEEN a 60s", "DUP"),
        ("PEEK a b c", "DDN"),
        ("TOUCH a 1h", "OK"),
        ("STATS small", "ROWS…| refused 2 |…"),
        ("FORGET a", "OK 1"),
        ("SEEN c 60s", "NEW"),
        ("SEEN a 60s", FULL),
        ("NS SET small MAXKEYS 3", "OK"),
        ("SEEN a 60s", "NEW"),
        ("NS SET small MAXKEYS 1", "OK"),
        ("MSEEN 60s a b c d", "DDDE"),
    ];
    stats_tells_of_the_server_or_a_namespace: &[
        ("MSEEN 60s a b a", "NND"),
        ("STATS", "ROWS … | version 0.1.0 | time_ms … | clock_ahead_ms 0 | namespaces 1 | keys 2 | memory_bytes … | memory_bytes_max 1073741824 | memory_overhead_bytes 0 | memory ok | waiters 0 | waiters_refused 0 | new 2 | dup 1 | mismatch 0 | unsure 2 | refused 0 | refused_memory 0 | refused_keys 0 | refused_disk 0 | expired 0 | evicted 0 | hit_rate 0.3333 | records_begun 0 | records_busy 0 | records_replayed 0 | records_completed 0 | records_failed 0 | records_released 0 | records_stale 0 | connections 1 | connections_total 1 | connections_refused 0 | connections_timed_out 0 | bytes_in … | bytes_out … | malformed 0 | verb_mseen_calls 1 | verb_mseen_errors 0 | verb_mseen_p50_us … | verb_mseen_p99_us … | verb_mseen_p999_us … | verb_mseen_p9999_us …"),
        ("SEEN", SEEN_USAGE),
        ("STATS", "ROWS…| verb_seen_calls 1 | verb_seen_errors 1 |…"),
        ("STATS default", "ROWS 30 | name default |…| keys 2 |…| new 2 | dup 1 |…"),
        ("STATS other", "ERR NONS no namespace 'other'; make it with NS SET other"),
        ("STATS a=b", BAD_NAME),
        ("STATS a b", "ERR ARGS usage: STATS [name]"),
    ];
    small_talk: &[
        ("PING", "PONG"),
        ("ping", "PONG"),
        ("PING hello", "hello"),
        ("PING \"two words\"", "\"two words\""),
        (r#"PING "\x00\xff\n""#, r#""\x00\xff\n""#),
        ("PING \"\"", "\"\""),
        ("PING a b", "ERR ARGS usage: PING [word]"),
        ("TIME", "~{now+60000}"),
        ("TIME now", "ERR ARGS usage: TIME"),
        ("SYNC", "ERR NOLOG there is no log: start the server with --data-dir"),
        ("SYNC now", "ERR ARGS usage: SYNC"),
        ("VERSION", "0.1.0"),
        ("VERSION 2", "ERR ARGS usage: VERSION"),
        ("HELP", "ROWS 24 | SEEN key [ttl] [SLIDE|FIXED] [FP hex] [AT unixms] [NS name] - Asks … | MSEEN … | QUIT - Ends…"),
        ("HELP seen", "ROWS 4 | usage SEEN key … | summary Asks… | replies NEW, DUP, MISMATCH, UNSURE | example SEEN order-17 60s -> NEW"),
        ("HELP TIME", "ROWS 3 | usage TIME | summary … | replies …"),
        ("HELP GET", "ERR UNKNOWN no such verb; HELP lists them"),
        ("HELP \"\"", "ERR UNKNOWN no such verb; HELP lists them"),
        ("HELP a b", "ERR ARGS usage: HELP [verb]"),
        ("QUIT now", "ERR ARGS usage: QUIT"),
        ("QUIT", "BYE"),
        ("", CLOSED),
    ];
    unknown_verbs_cost_the_request_only: &[
        ("HELLO", "ERR UNKNOWN unknown verb 'HELLO'; HELP lists the verbs"),
        ("SET k v NX", "ERR UNKNOWN unknown verb 'SET'; HELP lists the verbs"),
        ("ONCE.SEEN k", "ERR UNKNOWN unknown verb 'ONCE.SEEN'; HELP lists the verbs"),
        ("SEENX k", "ERR UNKNOWN unknown verb 'SEENX'; HELP lists the verbs"),
        ("\"\" k", "ERR UNKNOWN unknown verb ''; HELP lists the verbs"),
        (r#""\x00\r\n" k"#, r"ERR UNKNOWN unknown verb '\x00\r\n'; HELP lists the verbs"),
        ("{v*60}", "ERR UNKNOWN unknown verb '{v*40}'...; HELP lists the verbs"),
        ("\"SEEN\" k 60s", "NEW"),
        ("STATS", "ROWS…| malformed 7 |…"),
    ];
    keys_are_any_bytes: &[
        ("SEEN \"a b\" 60s", "NEW"),
        (r#"SEEN "a\x20b" 60s"#, "DUP"),
        ("SEEN \"plain\" 60s", "NEW"),
        ("SEEN plain 60s", "DUP"),
        (r#"SEEN "\x70lain" 60s"#, "DUP"),
        (r#"SEEN "\x00" 60s"#, "NEW"),
        (r#"SEEN "\x00\x00" 60s"#, "NEW"),
        ("SEEN \0 60s", "DUP"),
        (r#"SEEN "\n" 60s"#, "NEW"),
        (r#"SEEN "\x0a" 60s"#, "DUP"),
        (r#"SEEN "\r" 60s"#, "NEW"),
        (r#"SEEN "\t\"\\" 60s"#, "NEW"),
        (r#"SEEN "\x09\x22\x5C" 60s"#, "DUP"),
        (r#"SEEN "\xff\xfe" 60s"#, "NEW"),
        (r#"SEEN "\xFF\xFE" 60s"#, "DUP"),
        ("SEEN é 60s", "NEW"),
        (r#"SEEN "\xc3\xa9" 60s"#, "DUP"),
        ("SEEN a\"b 60s", "NEW"),
        (r#"SEEN "a\"b" 60s"#, "DUP"),
        (r"SEEN a\nb 60s", "NEW"),
        (r#"SEEN "a\\nb" 60s"#, "DUP"),
        ("SEEN 60s 60s", "NEW"),
        ("SEEN SLIDE SLIDE", "NEW"),
        ("SEEN - -", "NEW"),
        ("PEEK LEN 5", "NN"),
    ];
    malformed_lines_cost_the_request_only: &[
        ("SEEN \"a 60s", "ERR SYNTAX unbalanced quotes"),
        ("SEEN \"a\\", "ERR SYNTAX unbalanced quotes"),
        ("SEEN \"a\\\" 60s", "ERR SYNTAX unbalanced quotes"),
        ("\"", "ERR SYNTAX unbalanced quotes"),
        ("SEEN \"a\"b 60s", "ERR SYNTAX a closing quote ends a word; a space must follow it"),
        (r#"SEEN "\q" 60s"#, BAD_ESCAPE),
        (r#"SEEN "\x1g" 60s"#, r"ERR SYNTAX \x needs two hex digits"),
        (r#"SEEN "\x1" 60s"#, r"ERR SYNTAX \x needs two hex digits"),
        ("SEEN a 60s", "NEW"),
    ];
}

/// A server that makes no namespaces knows those of its file alone.
#[test]
fn namespaces_may_be_fixed() {
    let server = TestServer::with(|raw| {
        raw.create_namespaces = Some(false);
        raw.namespace.insert(
            "orders".to_owned(),
            onced::config::RawNamespace {
                ttl: Some("10m".to_owned()),
                ..onced::config::RawNamespace::default()
            },
        );
    });
    let none =
        "ERR NONS no namespace 'other', and this server makes none: create-namespaces is false";
    play_lines(
        &server,
        &[
            ("USE orders", "OK"),
            ("SEEN k", "NEW"),
            ("TTL k", "~600000"),
            ("USE other", none),
            ("NS SET other", none),
            ("SEEN k NS other", none),
            ("SEEN k", "DUP"),
            ("NS DROP orders", "OK"),
            (
                "SEEN k",
                "ERR NONS no namespace 'orders', and this server makes none: create-namespaces is false",
            ),
            ("NS INFO other", none),
            ("NS PURGE other", none),
            ("NS DROP other", none),
            ("PING", "PONG"),
            ("USE default", "OK"),
            ("SEEN k", "NEW"),
        ],
    );
}

/// How the default namespace keeps its keys is chosen in the file, or never.
#[test]
fn the_file_chooses_the_form_of_keys() {
    let server = TestServer::with(|raw| {
        for (name, keys) in [
            ("default", "digest"),
            ("urls", "DIGEST"),
            ("plain", "exact"),
        ] {
            raw.namespace.insert(
                name.to_owned(),
                onced::config::RawNamespace {
                    keys: Some(keys.to_owned()),
                    ..onced::config::RawNamespace::default()
                },
            );
        }
    });
    play_lines(
        &server,
        &[
            ("NS INFO default", "ROWS 30 |…| key_form DIGEST |…"),
            ("NS INFO urls", "ROWS 30 |…| key_form DIGEST |…"),
            ("NS INFO plain", "ROWS 30 |…| key_form EXACT |…"),
            ("NS SET default KEYS DIGEST TTL 10m", "OK"),
            (
                "NS SET default KEYS EXACT",
                "ERR ARGS KEYS of the default namespace is chosen in the configuration file",
            ),
            ("SEEN {x*100}", "NEW"),
            ("SEEN {x*100}", "DUP"),
            ("TTL {x*100}", "~600000"),
        ],
    );
}

/// Who is in a namespace when it is made anew goes on in the new one.
#[test]
fn a_connection_stays_in_a_namespace_whose_form_changes() {
    let server = TestServer::start();
    let (mut inside, mut admin) = (server.connect(), server.connect());
    let long = "x".repeat(100);
    assert_eq!(inside.ask("USE urls"), "OK");
    for (form, other) in [("DIGEST", "EXACT"), ("EXACT", "DIGEST")] {
        assert_eq!(admin.ask(&format!("NS SET urls KEYS {form}")), "OK");
        assert_eq!(inside.ask(&format!("SEEN {long}")), "NEW");
        assert_eq!(inside.ask(&format!("MSEEN 60s {long} short")), "DN");
        assert_eq!(admin.ask(&format!("SEEN {long} NS urls")), "DUP");
        let refused = admin.ask(&format!("NS SET urls KEYS {other}"));
        assert!(refused.starts_with("ERR RANGE "), "{refused}");
        assert_eq!(inside.ask(&format!("FORGET {long} short")), "OK 2");
    }
}

#[test]
fn a_full_namespace_evicts_the_soonest_to_expire() {
    const KEYS_MAX: usize = 1_000;
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(
        client.ask(&format!("NS SET cache MAXKEYS {KEYS_MAX} FULL EVICT")),
        "OK"
    );
    assert_eq!(client.ask("USE cache"), "OK");
    let batch = |name: &str, ttl: &str| {
        let keys: Vec<_> = (0..KEYS_MAX).map(|n| format!("{name}-{n}")).collect();
        format!("MSEEN {ttl} {}", keys.join(" "))
    };
    let all_new = "N".repeat(KEYS_MAX);
    assert_eq!(client.ask(&batch("soon", "60s")), all_new);
    assert_eq!(client.ask(&batch("late", "10h")), all_new);
    let rows = client.ask_all("STATS cache").join(" | ");
    assert!(
        rows.contains("| keys 1000 |") && rows.contains("| evicted 1000 |"),
        "{rows}"
    );
    // Each shard evicts from its own keys, so a few late ones went before the last soon ones.
    let late = client.ask(&batch("late", "10h").replace("MSEEN 10h", "PEEK"));
    let kept = late.matches('D').count();
    assert!(kept > KEYS_MAX * 8 / 10, "{kept} of the late keys are left");
}

#[test]
fn unsure_answers_come_in_batches_too() {
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET default UNSURE REPORT"), "OK");
    client.send("SEEN a 1h\nSEEN b 1h\nSEEN a 1h\nSEEN c 1h AT 0\nSEEN d 1h\n");
    for wanted in ["UNSURE", "UNSURE", "DUP", "UNSURE", "UNSURE"] {
        assert_eq!(client.line(), wanted);
    }
    let mut resp = server.connect();
    let requests: [&[&str]; 6] = [
        &["SEEN", "e", "1h"],
        &["SEEN", "f", "1h"],
        &["SET", "g", "v", "NX"],
        &["SET", "g", "v", "NX"],
        &["SETNX", "h", "v"],
        &["SETNX", "h", "v"],
    ];
    resp.send(requests.map(resp_request).concat());
    for wanted in ["+UNSURE", "+UNSURE", "+OK", "nil", ":1", ":0"] {
        assert_eq!(resp.resp(), wanted);
    }
    assert_eq!(client.gauge("unsure"), 8);
}

#[test]
fn every_verb_of_the_table_has_a_scenario() {
    for spec in verbs().map(onced::command::spec::Verb::spec) {
        let is_played = SCENARIOS
            .iter()
            .copied()
            .flatten()
            .any(|(request, reply): &Step| {
                request.split_ascii_whitespace().next() == Some(spec.name)
                    && !reply.starts_with("ERR UNKNOWN")
            });
        assert!(
            is_played || spec.home == Home::Redis,
            "{} has no scenario",
            spec.name
        );
    }
}
