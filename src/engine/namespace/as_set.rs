//! What a namespace is as a set of Redis's: whether it is one, and when the whole of it ends.
//!
//! A namespace is a set once a command on sets has named it. `EXPIRE` gives a set an end, which is that of the
//! members that are there and of those that come until then. Who moves it on and on would have all members gone
//! through each time; so members get somewhat more than was asked for then, and nothing is to be done until
//! that is used up. What was asked for is what is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Namespace, Policy};
use crate::engine::journal::Refused;
use crate::log::control::SetEnds;
use crate::time::Millis;

/// When a set ends; 0 is never. Changed while the policy cannot be.
#[derive(Debug, Default)]
pub(super) struct AsSet {
    is_set: AtomicBool,
    /// The end that was asked for.
    asked: AtomicU64,
    /// The end of members that come now: that one, or a later one.
    members: AtomicU64,
    /// The end that members have which were there, once all were gone through.
    assured: AtomicU64,
}

fn end(moment: &AtomicU64) -> Option<Millis> {
    let at = moment.load(Ordering::Relaxed);
    (at > 0).then_some(Millis(at))
}

impl AsSet {
    /// When it ends, if it is a set.
    pub(super) fn ends(&self) -> Option<SetEnds> {
        let at = |moment: &AtomicU64| Millis(moment.load(Ordering::Relaxed));
        self.is_set.load(Ordering::Relaxed).then(|| SetEnds {
            asked: at(&self.asked),
            members: at(&self.members),
        })
    }

    /// Becomes what the log says.
    pub(super) fn become_as(&self, logged: Option<SetEnds>) {
        self.is_set.store(logged.is_some(), Ordering::Relaxed);
        self.set_ends(logged.unwrap_or_default());
    }

    /// Is a set from here on, without an end.
    fn mark(&self) {
        self.is_set.store(true, Ordering::Relaxed);
    }

    /// Has no end, since it has no members.
    pub(super) fn begin_anew(&self) {
        self.set_ends(SetEnds::default());
    }

    fn set_ends(&self, ends: SetEnds) {
        self.asked.store(ends.asked.0, Ordering::Relaxed);
        self.members.store(ends.members.0, Ordering::Relaxed);
        self.assured.store(0, Ordering::Relaxed);
    }
}

impl Namespace {
    /// Whether it is one of Redis's sets.
    pub(in crate::engine) fn is_set(&self) -> bool {
        self.as_set.is_set.load(Ordering::Relaxed)
    }

    /// Becomes one of Redis's sets, if it is none, and begins anew where it has ended or lost all members.
    pub(in crate::engine) fn become_set(&self, now: Millis) -> Result<(), Refused> {
        let goes_on = || {
            let goes_on = |_| self.set_end(now).is_some() && self.keys() > 0;
            self.is_set() && end(&self.as_set.asked).is_none_or(goes_on)
        };
        if goes_on() {
            return Ok(());
        }
        let _no_other_policy_meanwhile = self.policy_change.lock();
        if goes_on() {
            return Ok(());
        }
        self.log_space(|space| space.set = Some(SetEnds::default()))?;
        self.as_set.mark();
        self.as_set.begin_anew();
        Ok(())
    }

    /// Is a set if another is whose place it takes.
    pub(in crate::engine) fn be_set_as(&self, other: &Self) {
        self.as_set.become_as(other.as_set.ends());
    }

    /// When the whole set ends, as was asked for.
    pub(in crate::engine) fn set_end(&self, now: Millis) -> Option<Millis> {
        end(&self.as_set.asked).filter(|end| now <= *end)
    }

    /// When a member ends that comes now, if that is the set's matter.
    pub(in crate::engine) fn members_end(&self, now: Millis) -> Option<Millis> {
        self.set_end(now).and_then(|_| end(&self.as_set.members))
    }

    /// How long a member lives that comes now, in milliseconds.
    pub(in crate::engine) fn member_ttl_ms(&self, policy: &Policy, now: Millis) -> u64 {
        self.members_end(now)
            .map_or(policy.ttl_ms, |end| end.since(now))
    }

    /// Gives the set an end, or none.
    pub(in crate::engine) fn end_set_at(&self, ends: SetEnds) -> Result<(), Refused> {
        let _no_other_policy_meanwhile = self.policy_change.lock();
        self.log_space(|space| space.set = Some(ends))?;
        self.as_set.set_ends(ends);
        Ok(())
    }

    /// Gives the set an end that all members have anyway, and none has for much longer; false if that is not so.
    pub(in crate::engine) fn end_set_within(
        &self,
        asked: Millis,
        slack_ms: u64,
    ) -> Result<bool, Refused> {
        let _no_other_policy_meanwhile = self.policy_change.lock();
        let assured = end(&self.as_set.assured);
        let fits = |end: &Millis| asked <= *end && end.since(asked) <= slack_ms;
        let Some(members) = assured.filter(fits) else {
            return Ok(false);
        };
        self.log_space(|space| space.set = Some(SetEnds { asked, members }))?;
        self.as_set.asked.store(asked.0, Ordering::Relaxed);
        Ok(true)
    }

    /// All members that were there have this end, if it is still theirs.
    pub(in crate::engine) fn assure_members_end(&self, members: Millis) {
        let _no_other_policy_meanwhile = self.policy_change.lock();
        if end(&self.as_set.members) == Some(members) {
            self.as_set.assured.store(members.0, Ordering::Relaxed);
        }
    }
}
