//! An engine with its log on a simulated disk, as a server has it.

use std::sync::Arc;

use onced::command::{PolicyChange, lookup_line, lookup_resp};
use onced::engine::{Engine, EngineConfig, Excess};
use onced::limits::Limits;
use onced::log::compact::Compactor;
use onced::log::mend::resume;
use onced::log::reader::{Present, Reader};
use onced::log::storage::Storage;
use onced::log::writer::{Fsync, Log, LogConfig};
use onced::time::Millis;
use onced::wire::{Decoded, Decoder};

use crate::frames;
use crate::simulated_disk::SimulatedDisk;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub fsync: Fsync,
    /// The machine's run.
    pub boot: u8,
    pub now: Millis,
    pub recovers: bool,
    pub memory_bytes_max: usize,
    /// Namespaces that the configuration names.
    pub namespaces: Vec<String>,
}

impl Options {
    pub fn at(now: Millis) -> Self {
        Self {
            fsync: Fsync::EverySec,
            boot: 0,
            now,
            recovers: false,
            memory_bytes_max: isize::MAX.unsigned_abs(),
            namespaces: Vec::new(),
        }
    }
}

/// A server's inside: engine, log, and what compacts it.
pub struct Run {
    pub disk: SimulatedDisk,
    pub engine: Engine,
    pub log: Arc<Log>,
    pub compactor: Compactor,
}

impl Run {
    /// Reads what is on a disk and goes on from it.
    pub fn start(
        disk: SimulatedDisk,
        options: &Options,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let boot = [options.boot; 16];
        let present = Present {
            now: options.now,
            boot,
            recovers: options.recovers,
            is_copy: false,
        };
        let reader = Reader::open(Arc::clone(&storage), present)?;
        let names = options.namespaces.iter();
        let engine = Engine::new(EngineConfig {
            covered_since: options.now,
            started: options.now,
            shards: 4,
            memory_bytes_max: options.memory_bytes_max,
            namespaces: names
                .map(|name| (name.clone(), PolicyChange::default()))
                .collect(),
            ..EngineConfig::default()
        });
        let restored = engine
            .restore(reader, Excess::Evicted, 2, |_| true)?
            .unwrap();
        let config = LogConfig {
            fsync: options.fsync,
            segment_bytes: 64 << 10,
            frame_bytes_max: 8 << 10,
            boot,
            secrets: frames::secrets(u64::from(options.boot) ^ options.now.0),
        };
        let log = resume(
            &storage,
            &restored.findings,
            config,
            restored.start,
            options.now,
        )?;
        let log = Arc::clone(engine.attach(log));
        Ok(Self {
            disk,
            engine,
            log,
            compactor: Compactor::new(16 << 10),
        })
    }

    /// What is answered in the default namespace.
    pub fn execute(&self, request: &str, now: Millis) -> String {
        self.execute_in("default", request, now)
    }

    /// What is answered in a namespace, which is chosen before.
    pub fn execute_in(&self, space: &str, request: &str, now: Millis) -> String {
        let told = self.told_in(space, request, now);
        assert!(!told.starts_with("Error("), "{request}: {told}");
        told
    }

    /// What is answered in the default namespace, refusals included.
    pub fn told(&self, request: &str, now: Millis) -> String {
        self.told_in("default", request, now)
    }

    fn told_in(&self, space: &str, request: &str, now: Millis) -> String {
        let mut session = self.engine.session();
        let limits = Limits::DEFAULT;
        let mut told = String::new();
        for request in [&format!("USE {space}"), request] {
            let line = request.to_owned() + "\n";
            let mut decoder = Decoder::default();
            let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), &limits) else {
                panic!("{request} is no request");
            };
            // Redis's commands too: what a line is called does not matter here.
            let verb = lookup_resp(args.verb()).or_else(|| lookup_line(args.verb()));
            let command = verb.unwrap().spec().parse(&args, &limits).unwrap();
            let reply = self.engine.execute(&mut session, &command, now);
            told = format!("{reply:?}");
        }
        told
    }

    /// Looks through what it will; returns whether anything was done.
    pub fn compact(&mut self, steps: usize, now: Millis) -> std::io::Result<bool> {
        let Self {
            engine,
            log,
            compactor,
            ..
        } = self;
        let mut done = false;
        for _ in 0..steps {
            // A copy waits for what is in the log; without threads somebody has to see to that.
            log.sync(now);
            let keys = engine.totals().keys;
            let more = compactor.step(log, keys, now, |space, records, alive| {
                engine.survive(space, records, alive, now);
            })?;
            done |= more;
            if !more {
                break;
            }
        }
        Ok(done)
    }
}
