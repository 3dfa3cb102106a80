//! What the log is told of namespaces: that one is there, has other properties, was emptied, or is gone.
//!
//! All of it is known twice: as of what was appended, which is where numbers come from, and as of what was
//! written, with which a segment begins.

use super::{Log, Pending};
use crate::log::control::{Control, SPACE_NUMBERS_MAX, Space};
use crate::log::frame;
use crate::time::Millis;

impl Log {
    /// Gives a new namespace its number and appends that it is there, in the place of any other of its
    /// name; or that it has other properties, if it has a number. False, and nothing, if there is no space, or
    /// all numbers were given out.
    #[must_use]
    pub fn append_space(&self, space: &mut Space) -> bool {
        self.append_emptied(space, &mut [], Millis(0), |_| {})
    }

    /// The same for a namespace that was emptied, with the frames of what stays of it and the last deadline in
    /// them; space was promised for these, and their number is set here. `known` is told it before anybody
    /// else can read them.
    ///
    /// They come first, under a number of which nothing was said yet, so that wherever the log ends it has
    /// the namespace as it was, or all that stays.
    #[must_use]
    pub fn append_emptied(
        &self,
        space: &mut Space,
        kept: &mut [u8],
        last: Millis,
        known: impl FnOnce(u32),
    ) -> bool {
        // The number takes the same space whatever it is.
        let bytes = frame_of(&Control::Space(space.clone())).len();
        if !self.promise(bytes) {
            return false;
        }
        let mut pending = self.pending.lock();
        if space.id == 0 {
            if pending.spaces.next == SPACE_NUMBERS_MAX {
                self.give_back(bytes);
                return false;
            }
            space.id = pending.spaces.next;
        }
        if !kept.is_empty() {
            frame::readdress(kept, space.id);
            pending.last = pending.last.max(last);
            self.append_to(&mut pending, kept);
        }
        self.append_control(&mut pending, Control::Space(space.clone()));
        known(space.id);
        if self.has_failed() {
            self.doubt(kept);
        }
        true
    }

    /// Appends that a namespace is gone, and from when on nothing was lost of namespaces that are not
    /// there; false, and nothing, if there is no space.
    #[must_use]
    pub fn append_dropped(&self, id: u32, covered_since: Millis) -> bool {
        let dropped = Control::Dropped { id, covered_since };
        if !self.promise(frame_of(&dropped).len()) {
            return false;
        }
        self.append_control(&mut self.pending.lock(), dropped);
        true
    }

    fn append_control(&self, pending: &mut Pending, control: Control) {
        let end = self.append_to(pending, &frame_of(&control));
        pending.spaces.hear(&control, |_| {});
        pending.controls.push((end, control));
    }
}

fn frame_of(control: &Control) -> Vec<u8> {
    let mut frame = Vec::new();
    control.push_frame(&mut frame);
    frame
}
