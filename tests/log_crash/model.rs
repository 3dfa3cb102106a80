//! What was appended to a log, change by change, and what may be left of it.
//!
//! A log has one order for all its changes, so what is left must be what some number of them made, the
//! first so many. The table of namespaces that a segment begins with is no exception.

use std::collections::BTreeMap;
use std::fmt::Write;

use onced::log::control::Space;
use onced::time::Millis;

use crate::restore::{Entry, Place, Restored};

/// All that was appended since the last start, and what there was before.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// States of each key: after how many changes it was in each, and its state; `None` is gone.
    keys: BTreeMap<Place, Vec<(usize, Option<Entry>)>>,
    spaces: BTreeMap<u32, Vec<(usize, Option<Space>)>>,
    /// Where the log ended after each change.
    ends: Vec<u64>,
    /// Keys that each change was about.
    touched: Vec<Vec<Vec<u8>>>,
}

impl Model {
    /// What the log says is what there is.
    pub fn of(restored: &Restored) -> Self {
        let keys = restored.keys.iter();
        let spaces = restored.spaces.iter();
        Self {
            keys: keys
                .map(|(place, entry)| (place.clone(), vec![(0, Some(entry.clone()))]))
                .collect(),
            spaces: spaces
                .map(|(id, space)| (*id, vec![(0, Some(space.clone()))]))
                .collect(),
            ..Self::default()
        }
    }

    /// How many changes there were.
    pub fn changes(&self) -> usize {
        self.ends.len()
    }

    /// How many of them end at or before a position.
    pub fn upto(&self, position: u64) -> usize {
        self.ends.partition_point(|end| *end <= position)
    }

    /// What a key holds.
    pub fn entry(&self, place: &Place, now: Millis) -> Option<&Entry> {
        let (_, entry) = self.keys.get(place)?.last()?;
        entry.as_ref().filter(|entry| entry.deadline >= now)
    }

    /// Namespaces that are there.
    pub fn spaces(&self) -> Vec<Space> {
        let last = self.spaces.values().filter_map(|states| states.last());
        last.filter_map(|(_, space)| space.clone()).collect()
    }

    /// One change, of these keys of a namespace, in one frame that ends there.
    pub fn change(&mut self, states: Vec<(Place, Option<Entry>)>, end: u64) {
        self.ends.push(end);
        let touched = states.iter().map(|((_, key), _)| key.clone()).collect();
        self.touched.push(touched);
        for (place, entry) in states {
            let states = self.keys.entry(place).or_default();
            states.push((self.ends.len(), entry));
        }
    }

    /// A namespace is there, is another, or is gone with its keys.
    pub fn change_space(&mut self, id: u32, space: Option<Space>, end: u64) {
        self.ends.push(end);
        self.touched.push(Vec::new());
        if space.is_none() {
            for (_, states) in self.keys.range_mut((id, vec![])..(id + 1, vec![])) {
                states.push((self.ends.len(), None));
            }
        }
        let states = self.spaces.entry(id).or_default();
        states.push((self.ends.len(), space));
    }

    /// Keys of changes after the first so many.
    pub fn touched_after(&self, changes: usize) -> impl Iterator<Item = &Vec<u8>> {
        self.touched[changes..].iter().flatten()
    }

    /// Says how many changes are left, at the most; panics if there is no such number, or none that is as
    /// high as required.
    pub fn check(&self, restored: &Restored, required: usize, now: Millis) -> usize {
        let mut fits = vec![0_i64; self.changes() + 2];
        let mut asked = 0;
        for (place, states) in &self.keys {
            asked += 1;
            let found = restored.keys.get(place);
            for (from, upto) in self.intervals(states, |state| {
                state.filter(|entry| entry.deadline >= now) == found
            }) {
                fits[from] += 1;
                fits[upto] -= 1;
            }
        }
        for (id, states) in &self.spaces {
            asked += 1;
            let found = restored.spaces.get(id);
            for (from, upto) in self.intervals(states, |space| space == found) {
                fits[from] += 1;
                fits[upto] -= 1;
            }
        }
        for place in restored.keys.keys() {
            assert!(self.keys.contains_key(place), "{place:?} was never there");
        }
        let mut sum = 0;
        let mut left = Vec::new();
        for (changes, more) in fits[..=self.changes()].iter().enumerate() {
            sum += more;
            if sum == asked {
                left.push(changes);
            }
        }
        let most = left.last().copied();
        assert!(
            most.is_some_and(|most| most >= required),
            "{required} of {} changes must be there; what is there is like {left:?}{}",
            self.changes(),
            self.difference(restored, required, now)
        );
        for id in restored.spaces.keys() {
            assert!(self.spaces.contains_key(id), "{id} was never there");
            assert!(*id < restored.next_space);
        }
        most.unwrap_or_default()
    }

    /// From which number of changes on, and up to which, a key was as asked. Before its first it was not.
    fn intervals<'a, T>(
        &self,
        states: &'a [(usize, Option<T>)],
        is: impl Fn(Option<&'a T>) -> bool,
    ) -> Vec<(usize, usize)> {
        let mut intervals = Vec::new();
        let (mut from, mut state) = (0, None);
        for (at, next) in states {
            if *at > from && is(state) {
                intervals.push((from, *at));
            }
            (from, state) = (*at, next.as_ref());
        }
        if is(state) {
            intervals.push((from, self.changes() + 1));
        }
        intervals
    }

    /// What differs from the state after so many changes, for the report.
    fn difference(&self, restored: &Restored, changes: usize, now: Millis) -> String {
        let mut text = String::new();
        for (place, states) in &self.keys {
            let (_, after) = states
                .iter()
                .rfind(|(at, _)| *at <= changes)
                .unwrap_or(&(0, None));
            let after = after.as_ref().filter(|entry| entry.deadline >= now);
            let found = restored.keys.get(place);
            let short = |entry: Option<&Entry>| entry.map(|entry| entry.deadline.0);
            if after != found {
                let history: Vec<_> = states
                    .iter()
                    .map(|(at, entry)| (*at, short(entry.as_ref())))
                    .collect();
                let key = String::from_utf8_lossy(&place.1[..place.1.len().min(40)]).into_owned();
                let _never_fails = write!(
                    text,
                    "\n  {} {key}: {:?} is there, its states {history:?}",
                    place.0,
                    short(found)
                );
            }
        }
        text
    }
}
