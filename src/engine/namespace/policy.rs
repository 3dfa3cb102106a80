//! What a namespace does where a request does not say, and how threads share that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::command::{Error, PolicyChange, Ttl};
use crate::limits::Limits;
use crate::log::control::Space;
use crate::store::{Verdict, WindowMode};
use crate::time::DurationWord;

/// What a namespace does where a request does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The life of keys that name none, in milliseconds.
    pub ttl_ms: u64,
    /// The longest life, in milliseconds.
    pub ttl_max_ms: u64,
    /// What a repeat does to a window.
    pub mode: WindowMode,
    /// How many keys; 0 is without end. Threads that insert at the same moment may exceed it by one each.
    pub keys_max: u64,
    /// Whether keys are evicted when there is no room, soonest to expire first.
    pub evict: bool,
    /// Whether [`Verdict::Unsure`] is told; if not, it is [`Verdict::New`], and counted.
    pub reports_unsure: bool,
}

impl Policy {
    /// The policy of a namespace that nobody has set.
    pub fn default_of(limits: &Limits) -> Self {
        Self {
            ttl_ms: limits.ttl_default_ms,
            ttl_max_ms: limits.ttl_max_ms,
            mode: WindowMode::Fixed,
            keys_max: 0,
            evict: false,
            reports_unsure: false,
        }
    }

    /// The policy that the log knows.
    pub(super) fn of(space: &Space) -> Self {
        Self {
            ttl_ms: space.ttl_ms,
            ttl_max_ms: space.ttl_max_ms,
            mode: if space.slides {
                WindowMode::Slide
            } else {
                WindowMode::Fixed
            },
            keys_max: space.keys_max,
            evict: space.evicts,
            reports_unsure: space.reports_unsure,
        }
    }

    /// A shard's verdict as this namespace tells it.
    #[inline]
    pub(in crate::engine) fn told(&self, verdict: Verdict) -> Verdict {
        if verdict == Verdict::Unsure && !self.reports_unsure {
            return Verdict::New;
        }
        verdict
    }

    /// The policy with some of it changed, if that fits together.
    pub fn with(mut self, change: &PolicyChange) -> Result<Self, Error> {
        self.ttl_max_ms = change.ttl_max_ms.unwrap_or(self.ttl_max_ms);
        // A default that nobody named gives way to a shorter maximum.
        self.ttl_ms = change.ttl_ms.unwrap_or(self.ttl_ms.min(self.ttl_max_ms));
        self.mode = change.mode.unwrap_or(self.mode);
        self.keys_max = change.keys_max.unwrap_or(self.keys_max);
        self.evict = change.evict.unwrap_or(self.evict);
        self.reports_unsure = change.reports_unsure.unwrap_or(self.reports_unsure);
        if self.ttl_ms > self.ttl_max_ms {
            let (ttl, max) = (DurationWord(self.ttl_ms), DurationWord(self.ttl_max_ms));
            return Err(Error::range(format!(
                "the namespace's ttl ({ttl}) would exceed its longest ({max})"
            )));
        }
        Ok(self)
    }

    /// A request's TTL in milliseconds; an error if it is longer than this namespace allows.
    pub fn ttl_ms(&self, ttl: Ttl) -> Result<u64, Error> {
        match ttl {
            Ttl::Default => Ok(self.ttl_ms),
            Ttl::Ms(ms) if ms <= self.ttl_max_ms => Ok(ms),
            Ttl::Ms(_) => Err(Error::range(format!(
                "the longest ttl here is {}",
                DurationWord(self.ttl_max_ms)
            ))),
        }
    }
}

/// A policy that is read with every request and seldom changed: each field by itself, without a lock.
#[derive(Debug)]
pub(super) struct SharedPolicy {
    ttl_ms: AtomicU64,
    ttl_max_ms: AtomicU64,
    slides: AtomicBool,
    keys_max: AtomicU64,
    evict: AtomicBool,
    reports_unsure: AtomicBool,
}

impl SharedPolicy {
    pub(super) fn new(policy: &Policy) -> Self {
        let shared = Self {
            ttl_ms: AtomicU64::new(0),
            ttl_max_ms: AtomicU64::new(0),
            slides: AtomicBool::new(false),
            keys_max: AtomicU64::new(0),
            evict: AtomicBool::new(false),
            reports_unsure: AtomicBool::new(false),
        };
        shared.store(policy);
        shared
    }

    pub(super) fn load(&self) -> Policy {
        Policy {
            ttl_ms: self.ttl_ms.load(Ordering::Relaxed),
            ttl_max_ms: self.ttl_max_ms.load(Ordering::Relaxed),
            mode: if self.slides.load(Ordering::Relaxed) {
                WindowMode::Slide
            } else {
                WindowMode::Fixed
            },
            keys_max: self.keys_max.load(Ordering::Relaxed),
            evict: self.evict.load(Ordering::Relaxed),
            reports_unsure: self.reports_unsure.load(Ordering::Relaxed),
        }
    }

    pub(super) fn store(&self, policy: &Policy) {
        self.ttl_ms.store(policy.ttl_ms, Ordering::Relaxed);
        self.ttl_max_ms.store(policy.ttl_max_ms, Ordering::Relaxed);
        self.slides
            .store(policy.mode == WindowMode::Slide, Ordering::Relaxed);
        self.keys_max.store(policy.keys_max, Ordering::Relaxed);
        self.evict.store(policy.evict, Ordering::Relaxed);
        self.reports_unsure
            .store(policy.reports_unsure, Ordering::Relaxed);
    }
}
