//! One caller's place in the engine: its namespace, a scratch buffer, and what it has not finished.
//!
//! A caller that waits for its client holds no namespace but by name: one that another drops meanwhile gives all
//! of its memory back, however many idle connections are in it. The default namespace is never dropped, and is held
//! all the time.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use super::{DEFAULT_NAMESPACE, Namespace, Unfinished};

/// Bytes of its scratch buffer that a resting caller keeps.
const LETTERS_KEPT: usize = 1 << 10;

/// One caller's place in the engine.
#[derive(Debug)]
pub struct Session {
    pub(super) namespace: Chosen,
    pub(super) letters: Vec<u8>,
    /// How far the command has come that is not finished.
    pub(super) progress: Unfinished,
}

impl Session {
    /// In the default namespace.
    pub(super) fn new(default: &Arc<Namespace>) -> Self {
        Self {
            namespace: Chosen {
                held: Some(Arc::clone(default)),
                resting: Weak::new(),
                name: default.shared_name(),
            },
            letters: Vec::new(),
            progress: Unfinished::default(),
        }
    }

    /// The namespace that commands without one mean.
    pub fn namespace(&self) -> &Arc<Namespace> {
        self.namespace.held()
    }

    /// Means another one from here on; returns the one before.
    pub(crate) fn enter(&mut self, namespace: Arc<Namespace>) -> Arc<Namespace> {
        let before = Arc::clone(self.namespace.held());
        self.namespace.choose(namespace);
        before
    }

    /// Holds no namespace that may be dropped, until it goes on.
    pub(crate) fn rest(&mut self) {
        if !self.namespace.is_default() {
            self.namespace.held = None;
        }
        // A long reply's letters: up to 250 KB, of which nobody would know.
        if !self.is_under_way() && self.letters.capacity() > LETTERS_KEPT {
            self.letters = Vec::new();
        }
    }

    /// Has its namespace again: where that was dropped, one that is marked so, and goes when it is looked up.
    pub(crate) fn go_on(&mut self) {
        let chosen = &mut self.namespace;
        if chosen.held.is_none() {
            let namespace = chosen.resting.upgrade();
            let departed = || Arc::new(Namespace::departed(&chosen.name));
            chosen.held = Some(namespace.unwrap_or_else(departed));
        }
    }
}

/// The namespace that a caller chose.
#[derive(Debug)]
pub(super) struct Chosen {
    /// `None` while the caller rests, unless that is the default one.
    held: Option<Arc<Namespace>>,
    /// The same, for when the caller goes on; dangling where that is the default one.
    resting: Weak<Namespace>,
    name: Arc<str>,
}

impl Chosen {
    /// Goes to a namespace.
    pub(super) fn choose(&mut self, namespace: Arc<Namespace>) {
        let may_be_dropped = namespace.name() != DEFAULT_NAMESPACE;
        self.name = namespace.shared_name();
        self.resting = if may_be_dropped {
            Arc::downgrade(&namespace)
        } else {
            Weak::new()
        };
        self.held = Some(namespace);
    }

    fn held(&self) -> &Arc<Namespace> {
        let held = self.held.as_ref();
        held.expect("who rests goes on before it asks for anything")
    }

    fn is_default(&self) -> bool {
        // Nothing else dangles: a namespace that was chosen has been there.
        self.resting.ptr_eq(&Weak::new())
    }
}

impl Deref for Chosen {
    type Target = Arc<Namespace>;

    fn deref(&self) -> &Arc<Namespace> {
        self.held()
    }
}
