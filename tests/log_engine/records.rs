//! What restarts, power losses and repetitions must not do to records and their tokens.

use onced::log::compact::Compactor;
use onced::time::Millis;

use crate::run::{Options, Run};
use crate::simulated_disk::{Loss, SimulatedDisk};

const START: Millis = Millis(1_790_000_000_000);

fn at(seconds: u64) -> Millis {
    START.after(seconds * 1_000)
}

/// The token of a `RUN`.
fn token(told: &str) -> u64 {
    let token = told.strip_prefix("Figures(\"RUN\", [Some(");
    let token = token.and_then(|rest| rest.split(')').next()?.parse().ok());
    token.unwrap_or_else(|| panic!("{told}"))
}

/// A run whose clock was two days ahead; then the clock is set right.
#[test]
fn a_clock_that_was_ahead_lengthens_no_new_lease_and_shortens_no_ttl() {
    let ahead = at(2 * 86_400);
    let run = Run::start(SimulatedDisk::new(1), &Options::at(ahead)).unwrap();
    let held = token(&run.execute("BEGIN k LEASE 30s TTL 1h", ahead));
    run.execute(&format!("FAIL k {held} RETRY"), ahead);
    let renewed = token(&run.execute("BEGIN r LEASE 30s TTL 1h", ahead));
    while run.log.sync(ahead) {}
    let run = Run::start(run.disk.kill(), &Options::at(at(0))).unwrap();
    let held = token(&run.execute("BEGIN k LEASE 30s TTL 1h", at(0)));
    let told = run.execute("BEGIN k", at(1));
    assert!(told.contains("BUSY\", [Some(29001)"), "{told}");
    assert_eq!(
        run.execute(&format!("COMPLETE k {held}"), at(60)),
        "Word(\"OK\")"
    );
    let left = run.execute("TTL k", at(61));
    assert_eq!(left, "Number(3599)");
    // A lease that is renewed is as long as it was said to be, from now on.
    run.execute(&format!("RENEW r {renewed} LEASE 10s"), at(0));
    let told = run.execute("BEGIN r", at(11));
    assert!(token(&told) > held, "{told}");
}

/// The disk takes all that was not synced, again and again, and the clock stands nearly still.
#[test]
fn no_token_is_given_again_after_power_losses_in_a_row() {
    let run = Run::start(SimulatedDisk::new(1), &Options::at(at(0))).unwrap();
    let mut given = vec![token(&run.execute("BEGIN k", at(0)))];
    while run.log.sync(at(0)) {}
    let mut disk = run.disk.crash(1);
    for boot in 1..6_u8 {
        let options = Options {
            boot,
            ..Options::at(at(0))
        };
        let run = Run::start(disk, &options).unwrap();
        given.push(token(&run.execute(&format!("BEGIN k{boot}"), at(0))));
        run.log.write(at(0));
        disk = run.disk.crash_with(Loss::of_all(), boot.into());
    }
    assert!(given.is_sorted_by(|one, next| one < next), "{given:?}");
}

#[test]
fn what_a_holder_says_again_is_not_logged_again() {
    let mut run = Run::start(SimulatedDisk::new(1), &Options::at(at(0))).unwrap();
    let held = token(&run.execute("BEGIN k", at(0)));
    let completion = format!("COMPLETE k {held} BODY {}", "x".repeat(2_000));
    run.execute(&completion, at(1));
    let held = token(&run.execute("BEGIN released", at(0)));
    let release = format!("FAIL released {held} RETRY");
    run.execute(&release, at(1));
    while run.log.sync(at(1)) {}
    let bytes = run.log.bytes();
    for _ in 0..100 {
        assert_eq!(run.execute(&completion, at(2)), "Word(\"OK\")");
        assert_eq!(run.execute(&release, at(2)), "Word(\"OK\")");
        run.log.write(at(2));
    }
    while run.log.sync(at(2)) {}
    assert_eq!(run.log.bytes(), bytes);
    run.compactor = Compactor::new(0);
    run.compactor.begin(&run.log);
    while run.compact(1, at(3)).unwrap() {}
    let run = Run::start(run.disk.kill(), &Options::at(at(4))).unwrap();
    assert!(run.execute("PEEK k released", at(4)).contains("[67, 82]"));
}

/// The first milliseconds of 2100: past the last token that stands for a moment.
const YEAR_2100: Millis = Millis(4_102_444_800_000);

/// A start with a clock past 2094 began with the highest numbers, and every start after it with the same.
#[test]
fn tokens_rise_after_starts_by_a_clock_that_is_decades_ahead() {
    let mut disk = SimulatedDisk::new(1);
    let mut given = Vec::new();
    for (n, now) in [YEAR_2100, YEAR_2100, at(0), at(1), YEAR_2100, at(2)]
        .into_iter()
        .enumerate()
    {
        let run = Run::start(disk, &Options::at(now)).unwrap();
        for key in ["a", "b"] {
            given.push(token(&run.execute(&format!("BEGIN {key}{n}"), now)));
        }
        while run.log.sync(now) {}
        disk = run.disk.kill();
    }
    assert!(given.is_sorted_by(|one, next| one < next), "{given:?}");
    assert!(given.iter().all(|token| *token < 1 << 53), "{given:?}");
}

/// It lasted for as long as the clock had been ahead: 70 years.
#[test]
fn a_lease_that_a_clock_granted_which_was_ahead_is_as_long_as_it_was_said_to_be() {
    let run = Run::start(SimulatedDisk::new(1), &Options::at(YEAR_2100)).unwrap();
    let held = token(&run.execute("BEGIN k LEASE 30s TTL 1h", YEAR_2100));
    while run.log.sync(YEAR_2100) {}
    let mut run = Run::start(run.disk.kill(), &Options::at(at(0))).unwrap();
    let told = run.execute("BEGIN k", at(0));
    assert!(told.contains("BUSY\", [Some(30001)"), "{told}");
    assert_eq!(run.execute("TTL k", at(0)), "Number(3630)");
    // Its record in the log has another deadline than memory, and counts all the same.
    run.compactor = Compactor::new(0);
    run.compactor.begin(&run.log);
    while run.compact(1, at(1)).unwrap() {}
    let run = Run::start(run.disk.kill(), &Options::at(at(2))).unwrap();
    assert!(run.execute("BEGIN k", at(2)).contains("BUSY"));
    let next = token(&run.execute("BEGIN k LEASE 30s", at(33)));
    assert!(next > held);
    // And with the lease it was granted, the holder may still settle it in time.
    assert_eq!(
        run.execute(&format!("COMPLETE k {held}"), at(33)),
        "Word(\"STALE\")"
    );
}
