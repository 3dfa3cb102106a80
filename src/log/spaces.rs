//! The namespaces as of a place in a log, as its controls tell.

use std::collections::{BTreeMap, HashSet};

use super::control::{Control, Space};
use crate::time::Millis;

/// The namespaces that there are.
#[derive(Clone, Debug, Default)]
pub struct Spaces {
    /// By number.
    pub present: BTreeMap<u32, Space>,
    /// Above the number of every namespace that was heard of.
    pub next: u32,
    /// The moment from which on no key of a namespace that is not there was lost; `None` if no control said
    /// so yet.
    pub covered_since: Option<Millis>,
    /// The last token that was given, as far as controls say; 0 if none was.
    pub last_token: u64,
    /// The highest number that records came under.
    records_under: u32,
}

impl Spaces {
    /// These, and nothing else yet.
    pub fn of(
        spaces: impl IntoIterator<Item = Space>,
        next: u32,
        covered_since: Option<Millis>,
    ) -> Self {
        Self {
            present: spaces.into_iter().map(|space| (space.id, space)).collect(),
            next,
            covered_since,
            ..Self::default()
        }
    }

    /// Whether nothing was said of this number yet. Records under it are what stays of a namespace that
    /// is just being purged: they count once a control says that it has the number, if one does.
    pub fn is_to_come(&self, id: u32) -> bool {
        id >= self.next
    }

    /// Takes note of a number that records are under.
    pub fn note_records(&mut self, id: u32) {
        self.records_under = self.records_under.max(id);
    }

    /// A number that nothing in the log is under: neither what was said, nor what a purge left that came to
    /// no end.
    pub fn next_unused(&self) -> u32 {
        self.next.max(self.records_under.saturating_add(1))
    }

    /// Takes note of a control; `gone` is told the namespaces that are not there any more by what it says.
    pub fn hear(&mut self, control: &Control, mut gone: impl FnMut(Space)) {
        match control {
            Control::Opened(opened) => {
                let listed: HashSet<u32> = opened.spaces.iter().map(|space| space.id).collect();
                let not_listed = |id: &u32, _: &mut Space| !listed.contains(id);
                for (_, space) in self.present.extract_if(.., not_listed) {
                    gone(space);
                }
                for space in &opened.spaces {
                    self.put(space, &mut gone);
                }
                self.next = self.next.max(opened.next_space);
                self.covered_since = Some(opened.covered_since);
                self.last_token = self.last_token.max(opened.last_token);
            }
            // A number that was given to a namespace that is gone is not given again: this is such a one, as
            // it was before. What a segment begins with may be ahead of the frames that follow.
            Control::Space(space)
                if space.id < self.next && !self.present.contains_key(&space.id) => {}
            Control::Space(space) => self.put(space, &mut gone),
            Control::Dropped { id, covered_since } => {
                if let Some(space) = self.present.remove(id) {
                    gone(space);
                }
                self.next = self.next.max(id.saturating_add(1));
                self.covered_since = Some(*covered_since);
            }
            Control::Synced(_) | Control::Closed | Control::Sealed => {}
        }
    }

    fn put(&mut self, space: &Space, gone: &mut impl FnMut(Space)) {
        if !self.present.contains_key(&space.id) {
            // One that had the name before is gone: that is how a namespace is purged.
            let is_former = |_: &u32, former: &mut Space| former.name == space.name;
            for (_, former) in self.present.extract_if(.., is_former) {
                gone(former);
            }
        }
        self.present.insert(space.id, space.clone());
        self.next = self.next.max(space.id.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::control::Opened;
    use crate::log::segment::Position;

    fn space(id: u32, name: &str) -> Space {
        Space {
            id,
            name: name.to_owned(),
            keeps_digests: false,
            ttl_ms: 1,
            ttl_max_ms: 1,
            slides: false,
            keys_max: 0,
            evicts: false,
            reports_unsure: false,
            covered_since: Millis(0),
            unsure_until: Millis(0),
            set: None,
        }
    }

    fn opened(next_space: u32, spaces: &[(u32, &str)]) -> Control {
        Control::Opened(Box::new(Opened {
            at: Millis(0),
            boot: [0; 16],
            always_synced: false,
            synced: Position::default(),
            earlier: Vec::new(),
            next_space,
            covered_since: Millis(7),
            last_token: 0,
            spaces: spaces.iter().map(|&(id, name)| space(id, name)).collect(),
        }))
    }

    /// The names and numbers that are there after some controls, and the numbers that went.
    fn heard(controls: &[Control]) -> (Vec<(u32, String)>, Vec<u32>) {
        let mut spaces = Spaces::default();
        let mut gone = Vec::new();
        for control in controls {
            spaces.hear(control, |space| gone.push(space.id));
        }
        let present = spaces.present.into_values();
        (present.map(|space| (space.id, space.name)).collect(), gone)
    }

    #[test]
    fn a_namespace_goes_when_its_name_is_taken_or_it_is_dropped_or_not_listed() {
        let dropped = Control::Dropped {
            id: 2,
            covered_since: Millis(8),
        };
        for (next, left, went) in [
            (Control::Space(space(3, "a")), vec![(2, "b"), (3, "a")], 1),
            (dropped, vec![(1, "a")], 2),
            (opened(3, &[(1, "a")]), vec![(1, "a")], 2),
        ] {
            let (present, gone) = heard(&[opened(3, &[(1, "a"), (2, "b")]), next]);
            let left: Vec<_> = left.iter().map(|&(id, name)| (id, name.into())).collect();
            assert_eq!((present, gone), (left, vec![went]));
        }
    }

    #[test]
    fn a_number_that_is_gone_is_not_there_again() {
        // It was purged behind what follows: the frames before that say what was.
        let before = Control::Space(space(1, "a"));
        let (present, gone) = heard(&[opened(3, &[(2, "a")]), before]);
        assert_eq!((present, gone), (vec![(2, "a".to_owned())], vec![]));
    }
}
