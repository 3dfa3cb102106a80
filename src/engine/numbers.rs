//! `INCR` and its relatives: numbers in values.
//!
//! A sum takes the place of the value alone: the key's window ends when it did, whatever the namespace's mode.

use std::io::Write;

use super::values::wrong_type;
use super::waiters::Concerns;
use super::{Answer, Here, Namespace};
use crate::command::{Error, MARKER_VALUE, Reply, integer, stored_value};

/// Bytes of the longest number.
const NUMBER_BYTES_MAX: usize = 20;

impl Here<'_> {
    pub(super) fn add<'s>(&self, here: &Namespace, key: &[u8], amount: i64) -> Answer<'s> {
        let policy = here.policy();
        let kept = self.key(here, key);
        let longest = [0; NUMBER_BYTES_MAX];
        let sum = here.write(&kept, Some(&longest), &policy, |shard, room| {
            let (before, deadline) = match shard.get(&kept, self.now) {
                None => (0, self.now.after(policy.ttl_ms)),
                Some(entry) if entry.record().is_some() => return Err(wrong_type()),
                Some(entry) => {
                    let value = entry.value().map_or(MARKER_VALUE, |value| &value[..]);
                    (integer(value)?, entry.deadline)
                }
            };
            let sum: i64 = before.checked_add(amount).ok_or_else(overflow)?;
            let mut text = [0; NUMBER_BYTES_MAX];
            let text = written(sum, &mut text);
            let value = stored_value(text);
            let is_stored = shard.set(&kept, value, deadline, room, self.now);
            Ok(is_stored.then_some(sum))
        });
        match sum? {
            Some(sum) => {
                self.engine.waiters.wake(here, key, Concerns::All);
                Ok(Reply::Number(sum))
            }
            None => match self.engine.successor(here) {
                Some(next) => self.add(&next, key, amount),
                None => Err(self.engine.no_room(here)),
            },
        }
    }
}

/// A number's digits, in memory for them.
fn written(number: i64, memory: &mut [u8; NUMBER_BYTES_MAX]) -> &[u8] {
    let mut left = &mut memory[..];
    write!(left, "{number}").expect("a number of 64 bits has no more digits");
    let unused = left.len();
    &memory[..NUMBER_BYTES_MAX - unused]
}

fn overflow() -> Error {
    Error::redis("ERR increment or decrement would overflow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_numbers_have_room() {
        for number in [0, -1, 42, i64::MAX, i64::MIN] {
            let mut memory = [0; NUMBER_BYTES_MAX];
            assert_eq!(written(number, &mut memory), number.to_string().as_bytes());
        }
    }
}
