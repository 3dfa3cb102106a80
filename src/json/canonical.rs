//! The canonical form of a whole text.
//!
//! The first pass checks the grammar and notes of each object where its members are, sorted, and where it
//! ends; the second writes value after value, in the order of those notes. So a member is moved once,
//! however deep it stands, and not once for each object around it.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::read::{Kinds, Reader, Token, scalar_end, space_end};
use super::{number, string};

/// The canonical form of one JSON text; `None` if it is none, or has 4 GiB or more.
pub(crate) fn canonical(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let text = str::from_utf8(text).ok()?;
    if scalar_end(text.as_bytes(), 0) == Some(text.len()) && is_canonical(text) {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let plan = Plan::of(text)?;
    if plan.is_nothing_to_do {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut out = Vec::with_capacity(text.len());
    plan.write(text, &mut out)?;
    Some(Cow::Owned(out))
}

/// A member of an object, by offsets into the text.
#[derive(Clone, Copy)]
struct Member {
    /// Its name, quotes included.
    name: u32,
    name_end: u32,
    /// Its value, or the white space before it.
    value: u32,
    /// Objects with notes that begin before its value.
    objects_before: u32,
}

impl Member {
    fn name(self, text: &str) -> &str {
        &text[self.name as usize..self.name_end as usize]
    }
}

/// Notes about an object that is not empty.
#[derive(Clone, Copy, Default)]
struct Object {
    /// The first of its members in the plan.
    first: u32,
    /// Past the last of them.
    last: u32,
    /// Past the object in the text.
    end: u32,
    /// Objects with notes that begin before its end.
    objects_before_end: u32,
}

/// Notes about the objects of a text, in the order in which they begin, and their members, sorted.
#[derive(Default)]
struct Plan {
    objects: Vec<Object>,
    members: Vec<Member>,
    /// The text is in canonical form.
    is_nothing_to_do: bool,
}

/// An object that has not ended: its place among the objects, and where its members begin among those that
/// are not sorted yet.
struct Unended {
    object: u32,
    members: u32,
}

impl Plan {
    fn of(text: &str) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        let mut plan = Self {
            is_nothing_to_do: true,
            ..Self::default()
        };
        let mut unended: Vec<Unended> = Vec::new();
        let mut unsorted: Vec<Member> = Vec::new();
        let mut reader = Reader::new(text);
        loop {
            match reader.next()? {
                Token::Open if reader.is_in_object() => {
                    unended.push(Unended {
                        object: plan.objects.len() as u32,
                        members: unsorted.len() as u32,
                    });
                    plan.objects.push(Object::default());
                }
                Token::Name => {
                    let name = reader.span();
                    plan.is_nothing_to_do &= string::is_canonical(&text[name.clone()]);
                    unsorted.push(Member {
                        name: name.start as u32,
                        name_end: name.end as u32,
                        value: reader.at() as u32,
                        objects_before: plan.objects.len() as u32,
                    });
                }
                Token::Close if text.as_bytes()[reader.span().start] == b'}' => {
                    let Unended { object, members } = unended.pop()?;
                    let first = plan.members.len() as u32;
                    plan.sort(text, &mut unsorted, members as usize);
                    if plan.members.len() as u32 == first {
                        // An empty one needs no notes, and has nothing in it that has.
                        plan.objects.pop();
                        continue;
                    }
                    plan.objects[object as usize] = Object {
                        first,
                        last: plan.members.len() as u32,
                        end: reader.at() as u32,
                        objects_before_end: plan.objects.len() as u32,
                    };
                }
                Token::Scalar => plan.is_nothing_to_do &= is_canonical(&text[reader.span()]),
                Token::End => {
                    plan.is_nothing_to_do &= !reader.has_space();
                    return Some(plan);
                }
                Token::Open | Token::Close => {}
            }
        }
    }

    /// Moves the unsorted members from this one on to the plan, sorted, and of those with one name the last.
    fn sort(&mut self, text: &str, unsorted: &mut Vec<Member>, from: usize) {
        let compare = |a: &Member, b: &Member| string::compare(a.name(text), b.name(text));
        let members = &mut unsorted[from..];
        if members.is_sorted_by(|a, b| compare(a, b) == Ordering::Less) {
            self.members.extend_from_slice(members);
        } else {
            self.is_nothing_to_do = false;
            members.sort_by(compare);
            for (at, member) in members.iter().enumerate() {
                let next = members.get(at + 1);
                if next.is_none_or(|next| compare(member, next) != Ordering::Equal) {
                    self.members.push(*member);
                }
            }
        }
        unsorted.truncate(from);
    }

    /// Appends the canonical form of the text that the plan is of.
    fn write(&self, text: &str, out: &mut Vec<u8>) -> Option<()> {
        let bytes = text.as_bytes();
        let mut writing = Writing {
            plan: self,
            text,
            at: 0,
            objects_before: 0,
            kinds: Kinds::default(),
            unended: Vec::new(),
        };
        loop {
            let begin = space_end(bytes, writing.at);
            match bytes.get(begin)? {
                open @ (b'{' | b'[') => {
                    out.push(*open);
                    let inside = space_end(bytes, begin + 1);
                    let next = *bytes.get(inside)?;
                    if matches!(next, b'}' | b']') {
                        out.push(next);
                        writing.at = inside + 1;
                    } else {
                        writing.at = inside;
                        writing.open(*open == b'{', out)?;
                        continue;
                    }
                }
                first => {
                    let end = scalar_end(bytes, begin)?;
                    let scalar = &text[begin..end];
                    match first {
                        b'"' => string::write(scalar, out),
                        b'-' | b'0'..=b'9' => number::write(scalar, out),
                        _ => out.extend_from_slice(scalar.as_bytes()),
                    }
                    writing.at = end;
                }
            }
            if !writing.go_on(out)? {
                return Some(());
            }
        }
    }
}

/// Whether the string, number or word is written canonically already.
fn is_canonical(scalar: &str) -> bool {
    match scalar.as_bytes().first() {
        Some(b'"') => string::is_canonical(scalar),
        Some(b'-' | b'0'..=b'9') => number::is_canonical(scalar),
        _ => true,
    }
}

/// Where the second pass is.
struct Writing<'p> {
    plan: &'p Plan,
    text: &'p str,
    /// Past what was written last, or before the value that is to be written next.
    at: usize,
    /// Objects with notes that begin before that.
    objects_before: u32,
    kinds: Kinds,
    /// Objects that have not ended, and the member of each that is written next.
    unended: Vec<(u32, u32)>,
}

impl Writing<'_> {
    /// Goes into an object or array that is not empty.
    fn open(&mut self, is_object: bool, out: &mut Vec<u8>) -> Option<()> {
        self.kinds.push(is_object);
        if is_object {
            let first = self.plan.objects.get(self.objects_before as usize)?.first;
            self.unended.push((self.objects_before, first));
            self.member(out)?;
        }
        Some(())
    }

    /// Writes the name of the next member, and goes to its value.
    fn member(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let (_, next) = self.unended.last_mut()?;
        let member = *self.plan.members.get(*next as usize)?;
        *next += 1;
        string::write(member.name(self.text), out);
        out.push(b':');
        self.at = member.value as usize;
        self.objects_before = member.objects_before;
        Some(())
    }

    /// After a value: ends what it was the last in, and goes to the next; false if there is none.
    fn go_on(&mut self, out: &mut Vec<u8>) -> Option<bool> {
        let bytes = self.text.as_bytes();
        while self.kinds.depth() > 0 {
            if self.kinds.is_object() {
                let (object, next) = *self.unended.last()?;
                let object = self.plan.objects.get(object as usize)?;
                if next < object.last {
                    out.push(b',');
                    self.member(out)?;
                    return Some(true);
                }
                out.push(b'}');
                self.at = object.end as usize;
                self.objects_before = object.objects_before_end;
                self.unended.pop();
            } else {
                let behind = space_end(bytes, self.at);
                let separator = *bytes.get(behind)?;
                out.push(separator);
                self.at = behind + 1;
                if separator == b',' {
                    return Some(true);
                }
            }
            self.kinds.pop();
        }
        Some(false)
    }
}
