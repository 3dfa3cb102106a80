//! What the log is told of namespaces: that one is there, has other properties, was emptied, or is gone.
//!
//! All of it is known twice: as of what was appended, which is where numbers come from, and as of what was
//! written, with which a segment begins.

use std::sync::atomic::Ordering;

use super::{Log, Pending};
use crate::log::control::{Control, NO_SPACE, SPACE_NUMBERS_MAX, Space};
use crate::log::frame;
use crate::time::Millis;

/// What came of saying that a namespace was emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// It is so.
    Said,
    /// There is no space for it.
    NoSpace,
    /// Another needed a number meanwhile: nothing counts that was appended under this one.
    Lost,
}

impl Log {
    /// Keeps a number for what stays of a namespace that is to be emptied, until that is said or another needs
    /// a number. `None` if one is kept already, or all were given out.
    ///
    /// Of a number of which nothing was said yet a reader keeps the records, and no number above it may be
    /// said of before: so there is one at a time, and who needs one meanwhile takes the one behind it.
    pub fn keep_number(&self) -> Option<u32> {
        let mut pending = self.pending.lock();
        let number = pending.spaces.next;
        if pending.reserved.is_some() || number == SPACE_NUMBERS_MAX {
            return None;
        }
        pending.reserved = Some(number);
        self.is_emptying.store(true, Ordering::Release);
        Some(number)
    }

    /// Gives it up: it is not given to anybody, since records may be under it.
    pub fn lose_number(&self, number: u32) {
        let mut pending = self.pending.lock();
        if pending.reserved.take_if(|kept| *kept == number).is_some() {
            pending.spaces.next = number + 1;
            self.is_emptying.store(false, Ordering::Release);
        }
    }

    /// Whether records are appended under a number that nobody has yet.
    pub(in crate::log) fn is_emptying(&self) -> bool {
        self.is_emptying.load(Ordering::Acquire)
    }

    /// Appends frames, for which space was promised, under the number that is kept; `last` is the last
    /// deadline in them. False, and nothing, if it is kept no longer.
    #[must_use]
    pub fn append_staying(&self, number: u32, frames: &mut [u8], last: Millis) -> bool {
        let mut pending = self.pending.lock();
        if pending.reserved != Some(number) {
            return false;
        }
        frame::readdress(frames, number);
        pending.last = pending.last.max(last);
        self.append_to(&mut pending, frames);
        if self.has_doubts() {
            self.doubt(frames);
        }
        true
    }

    /// Appends that a namespace is there with nothing in it but what was appended under the number that was
    /// kept, which is its own from here on. `known` is told before anybody else can read that.
    #[must_use]
    pub fn append_emptied(&self, space: &Space, known: impl FnOnce()) -> Emptied {
        let bytes = frame_of(&Control::Space(space.clone())).len();
        if !self.promise(bytes) {
            return Emptied::NoSpace;
        }
        let mut pending = self.pending.lock();
        if pending.reserved != Some(space.id) {
            self.give_back(bytes);
            return Emptied::Lost;
        }
        pending.reserved = None;
        known();
        let said = covered(space.clone(), pending.covered_since_min);
        self.append_control(&mut pending, Control::Space(said));
        self.is_emptying.store(false, Ordering::Release);
        Emptied::Said
    }

    /// Gives a new namespace its number and appends that it is there, in the place of any other of its
    /// name; or that it has other properties, if it has a number. False, and nothing, if there is no space, or
    /// all numbers were given out.
    #[must_use]
    pub fn append_space(&self, space: &mut Space) -> bool {
        self.append_named(space, |_| {})
    }

    /// The same; `known` is told the number before anybody else can read what is under it.
    #[must_use]
    pub fn append_named(&self, space: &mut Space, known: impl FnOnce(u32)) -> bool {
        // The number takes the same space whatever it is.
        let bytes = frame_of(&Control::Space(space.clone())).len();
        if !self.promise(bytes) {
            return false;
        }
        let mut pending = self.pending.lock();
        if space.id == 0 {
            // One that is kept is skipped, and with that lost.
            let kept = pending.reserved.take();
            let next = pending.spaces.next + u32::from(kept.is_some());
            self.is_emptying.store(false, Ordering::Release);
            if next >= SPACE_NUMBERS_MAX {
                self.give_back(bytes);
                return false;
            }
            space.id = next;
        }
        let said = covered(space.clone(), pending.covered_since_min);
        self.append_control(&mut pending, Control::Space(said));
        known(space.id);
        true
    }

    /// Appends that a namespace is gone, and from when on nothing was lost of namespaces that are not
    /// there; false, and nothing, if there is no space.
    #[must_use]
    pub fn append_dropped(&self, id: u32, covered_since: Millis) -> bool {
        // It takes the same space whatever it says.
        if !self.promise(frame_of(&Control::Dropped { id, covered_since }).len()) {
            return false;
        }
        let mut pending = self.pending.lock();
        let covered_since = covered_since.max(pending.covered_since_min);
        self.append_control(&mut pending, Control::Dropped { id, covered_since });
        true
    }

    /// Appends, of all namespaces and of those that are not there, that nothing was lost from this moment
    /// on, and lets nothing that is said later say less. It takes the place of what an earlier call said, and
    /// is for the next start: memory knows better. False if there is no space for all of it; then it is to be
    /// said again.
    #[must_use]
    pub fn append_covered(&self, covered_since: Millis) -> bool {
        let spaces: Vec<_> = {
            let mut pending = self.pending.lock();
            pending.covered_since_min = covered_since;
            pending.spaces.present.keys().copied().collect()
        };
        for id in spaces {
            let Some(space) = self.pending.lock().spaces.present.get(&id).cloned() else {
                continue;
            };
            let bytes = frame_of(&Control::Space(space)).len();
            if !self.promise(bytes) {
                return false;
            }
            let mut pending = self.pending.lock();
            // It may be gone by now, or other than it was but for its name.
            match pending.spaces.present.get(&id).cloned() {
                Some(space) => {
                    let said = Space {
                        covered_since,
                        ..space
                    };
                    self.append_control(&mut pending, Control::Space(said));
                }
                None => self.give_back(bytes),
            }
        }
        self.append_dropped(NO_SPACE, covered_since)
    }

    fn append_control(&self, pending: &mut Pending, control: Control) {
        let end = self.append_to(pending, &frame_of(&control));
        pending.spaces.hear(&control, |_| {});
        pending.controls.push((end, control));
    }
}

/// The namespace, with nothing lost since that moment or a later one.
fn covered(space: Space, covered_since_min: Millis) -> Space {
    Space {
        covered_since: space.covered_since.max(covered_since_min),
        ..space
    }
}

fn frame_of(control: &Control) -> Vec<u8> {
    let mut frame = Vec::new();
    control.push_frame(&mut frame);
    frame
}
