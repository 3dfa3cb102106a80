//! The run as a whole: threads that connect, start together, and are watched until they are done.
//!
//! All connections stand before the first request is sent, so that connecting is not measured.
//! The first failure ends the run: half a load is no measurement. A server that stops answering
//! is given up on after the plan's timeout, so a run always ends.

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

use super::Plan;
use super::connection::{Connection, Outcome, Worker};
use super::pacer;
use super::schedule::Cursor;
use super::space;
use crate::address::Address;
use crate::cli::signals::EndRequest;

/// Connecting takes no longer than this, per connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the progress bar moves and the watchdogs look.
const TICK: Duration = Duration::from_millis(100);

/// Runs the load of `plan` to its end, or until asked to end, and returns what was measured.
pub(super) fn run(plan: Plan, end: Option<&EndRequest>) -> anyhow::Result<Outcome> {
    let endpoint = Endpoint::resolve(&plan.server)?;
    let plan = Arc::new(plan);
    let mut threads = Vec::new();
    let outcome = run_threads(&plan, &endpoint, end, &mut threads);
    // None of them sends anything afterwards; what they have to say they have said.
    for thread in threads {
        let _ = thread.join();
    }
    outcome
}

fn run_threads(
    plan: &Arc<Plan>,
    endpoint: &Endpoint,
    end: Option<&EndRequest>,
    threads: &mut Vec<thread::JoinHandle<()>>,
) -> anyhow::Result<Outcome> {
    let progress = Arc::new(AtomicU64::new(0));
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let (events_sender, events) = mpsc::channel();
    let mut gates = Vec::new();
    for number in 0..plan.threads {
        let (gate_sender, gate) = mpsc::channel();
        gates.push(gate_sender);
        let load = LoadThread {
            number,
            plan: Arc::clone(plan),
            endpoint: endpoint.clone(),
            progress: Arc::clone(&progress),
            stop: Arc::clone(&stop.0),
            events: events_sender.clone(),
            gate,
        };
        let thread = thread::Builder::new()
            .name(format!("bench-{number}"))
            .spawn(move || load.run())
            .context("cannot start a load thread")?;
        threads.push(thread);
    }
    drop(events_sender);
    for _ in 0..plan.threads {
        match events.recv()? {
            Event::Connected => {}
            Event::Done(outcome) => bail!(premature(*outcome)),
        }
    }
    let started = Instant::now();
    for gate in &gates {
        // A thread that is gone has reported why; `watch` will read it.
        let _ = gate.send(started);
    }
    watch(plan, (&events, end), &progress, started)
}

fn premature(outcome: anyhow::Result<Outcome>) -> anyhow::Error {
    outcome
        .err()
        .unwrap_or_else(|| anyhow!("a load thread ended before the start"))
}

/// Moves the progress bar until every thread is done.
fn watch(
    plan: &Plan,
    (events, end): (&Receiver<Event>, Option<&EndRequest>),
    progress: &AtomicU64,
    started: Instant,
) -> anyhow::Result<Outcome> {
    let bar = Bar::new(plan);
    let mut total = Outcome::new();
    let mut threads_left = plan.threads;
    while threads_left > 0 {
        if end.is_some_and(|end| end.signal().is_some()) {
            bar.clear();
            bail!("ended by a signal");
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Done(outcome)) => {
                total.merge((*outcome)?);
                threads_left -= 1;
            }
            Ok(Event::Connected) | Err(RecvTimeoutError::Timeout) => {
                bar.show(progress.load(Ordering::Relaxed), started.elapsed());
            }
            Err(RecvTimeoutError::Disconnected) => bail!("a load thread panicked"),
        }
    }
    bar.clear();
    Ok(total)
}

/// What a thread tells the one that started it.
enum Event {
    Connected,
    Done(Box<anyhow::Result<Outcome>>),
}

/// Tells the threads to give up when `run` returns, however it does.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A progress bar on standard error, if that is a terminal.
struct Bar {
    progress: ProgressBar,
    warmup: Duration,
    by_time: bool,
}

impl Bar {
    fn new(plan: &Plan) -> Self {
        let progress = if !io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else if let Some(requests) = plan.requests {
            ProgressBar::new(requests)
        } else {
            ProgressBar::new(plan.duration_ms.unwrap_or(0))
        };
        let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        progress.set_style(style);
        Self {
            progress,
            warmup: Duration::from_millis(plan.warmup_ms),
            by_time: plan.requests.is_none(),
        }
    }

    fn show(&self, replies: u64, elapsed: Duration) {
        let measured = elapsed.saturating_sub(self.warmup);
        if measured.is_zero() {
            self.progress.set_message("warming up");
            return;
        }
        let position = if self.by_time {
            measured.as_millis() as u64
        } else {
            replies
        };
        self.progress
            .set_position(position.min(self.progress.length().unwrap_or(position)));
        #[allow(clippy::cast_sign_loss)] // a rate for people, never negative
        let rate = (replies as f64 / measured.as_secs_f64()) as u64;
        self.progress.set_message(format!("{}/s", HumanCount(rate)));
    }

    fn clear(&self) {
        self.progress.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// An address, resolved.
#[derive(Clone, Debug)]
enum Endpoint {
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

impl Endpoint {
    fn resolve(server: &Address) -> anyhow::Result<Self> {
        match server {
            Address::Unix(path) => Ok(Self::Unix(path.clone())),
            Address::Tcp(host_port) => {
                let found = host_port
                    .to_socket_addrs()
                    .map_err(|error| anyhow!("cannot resolve {server}: {error}"))?;
                Ok(Self::Tcp(found.collect()))
            }
        }
    }
}

async fn dial_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One thread of the load generator: its own runtime and its share of the connections.
struct LoadThread {
    number: usize,
    plan: Arc<Plan>,
    endpoint: Endpoint,
    progress: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    events: Sender<Event>,
    gate: Receiver<Instant>,
}

impl LoadThread {
    fn run(self) {
        let outcome = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default())
            .context("cannot start a runtime")
            .and_then(|runtime| runtime.block_on(self.connect_and_work()));
        // Nobody listens any more once another thread has failed.
        let _ = self.events.send(Event::Done(Box::new(outcome)));
    }

    async fn connect_and_work(&self) -> anyhow::Result<Outcome> {
        match &self.endpoint {
            Endpoint::Tcp(addresses) => {
                let streams = self.dial_all(async || dial_tcp(addresses).await).await?;
                self.work(streams).await
            }
            Endpoint::Unix(path) => {
                let streams = self
                    .dial_all(async || UnixStream::connect(path).await)
                    .await?;
                self.work(streams).await
            }
        }
    }

    async fn dial_all<S>(&self, dial: impl AsyncFn() -> io::Result<S>) -> anyhow::Result<Vec<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Plan {
            server,
            connections,
            threads,
            namespace,
            form,
            ..
        } = &*self.plan;
        let mine = connections / threads + usize::from(self.number < connections % threads);
        let mut streams = Vec::with_capacity(mine);
        while streams.len() < mine {
            ensure!(
                !self.stop.load(Ordering::Relaxed),
                "another load thread failed"
            );
            let outcome = tokio::time::timeout(CONNECT_TIMEOUT, dial()).await;
            match outcome {
                Ok(Ok(mut stream)) => {
                    if let Some(name) = namespace {
                        let entered = space::enter(&mut stream, form.protocol, name);
                        tokio::time::timeout(CONNECT_TIMEOUT, entered)
                            .await
                            .with_context(|| format!("{server} does not answer"))??;
                    }
                    streams.push(stream);
                }
                // The first one failing says that the server is not there; a later one, that
                // a limit was reached, and then the number matters.
                Ok(Err(error)) if streams.is_empty() => {
                    bail!("cannot connect to {server}: {error}")
                }
                Ok(Err(error)) => bail!(
                    "cannot open {connections} connections to {server}: number {} failed: {error}",
                    streams.len() * threads + self.number + 1
                ),
                Err(_) => bail!("cannot connect to {server}: no answer within {CONNECT_TIMEOUT:?}"),
            }
        }
        Ok(streams)
    }

    async fn work<S>(&self, streams: Vec<S>) -> anyhow::Result<Outcome>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        self.events.send(Event::Connected)?;
        let started = self.gate.recv().context("another load thread failed")?;
        let connections = streams.len();
        let worker = Rc::new(Worker::new(
            Arc::clone(&self.plan),
            self.number,
            connections,
            started,
            Arc::clone(&self.progress),
        ));
        // Thread t of T takes the requests t, t + T, t + 2T, … of the schedule, and its
        // connections take turns at those.
        let (number, threads) = (self.number as u64, self.plan.threads as u64);
        let mut tasks = JoinSet::new();
        for (index, stream) in streams.into_iter().enumerate() {
            let cursor = worker.schedule().map(|_| {
                let first = index as u64 * threads + number;
                Cursor::new(first, connections as u64 * threads)
            });
            let connection = Connection::new(stream, Rc::clone(&worker), index, cursor);
            tasks.spawn_local(connection.drive());
        }
        let all_done = async {
            while let Some(joined) = tasks.join_next().await {
                joined.context("a connection's task panicked")??;
            }
            anyhow::Ok(())
        };
        let paced = async {
            pacer::pace(&worker, Cursor::new(number, threads), connections)
                .await
                .context("the timer failed")?;
            std::future::pending().await
        };
        tokio::select! {
            outcome = all_done => outcome?,
            outcome = paced => return outcome,
            error = self.watchdog(&worker) => return Err(error),
        }
        Ok(worker.take_outcome())
    }

    /// Returns when the run should be given up: another thread failed, or the server owes
    /// replies and has sent none for the plan's timeout.
    async fn watchdog(&self, worker: &Worker) -> anyhow::Error {
        let timeout = Duration::from_millis(self.plan.timeout_ms);
        let mut replies = worker.replies();
        let mut waiting_since = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            if self.stop.load(Ordering::Relaxed) {
                return anyhow!("another load thread failed");
            }
            if worker.in_flight() == 0 || worker.replies() != replies {
                replies = worker.replies();
                waiting_since = Instant::now();
            } else if waiting_since.elapsed() > timeout {
                return anyhow!(
                    "{} has not answered for {timeout:?}, with {} requests waiting (after {replies} replies)",
                    self.plan.server,
                    worker.in_flight(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::sync::Mutex;

    use super::super::tests::plan;
    use super::*;

    /// A server on a free port that hands each connection to `serve`; returns its address.
    fn server(serve: impl Fn(StdStream) + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        address
    }

    /// Answers `SEEN` truthfully for all connections together.
    fn deduplicating() -> SocketAddr {
        let seen = Mutex::new(HashSet::new());
        server(move |stream| {
            let mut replies = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                let key = line.split(' ').nth(1).unwrap().to_owned();
                let is_new = seen.lock().unwrap().insert(key);
                let reply: &[u8] = if is_new { b"NEW\n" } else { b"DUP\n" };
                if replies.write_all(reply).is_err() {
                    return;
                }
            }
        })
    }

    fn outcome(server: SocketAddr, line: &str) -> anyhow::Result<Outcome> {
        run(plan(&format!("--server {server} {line}")).unwrap(), None)
    }

    fn failure(server: SocketAddr, line: &str) -> String {
        outcome(server, line).expect_err(line).to_string()
    }

    #[test]
    fn every_request_is_answered_and_every_key_new_once() {
        for line in [
            "-n 5000 -c 7 -p 4",
            "-n 5000 -c 7 -p 4 -t 3 --repeat 60",
            "-n 3 -c 5 -t 2",
            "-n 1000 -c 3 -p 2 -t 2 --rate 20k",
        ] {
            let found = outcome(deduplicating(), line).unwrap();
            let plan = plan(line).unwrap();
            let tally = &found.measured;
            assert_eq!(Some(tally.requests), plan.requests, "{line}");
            assert_eq!(tally.replies, tally.requests, "{line}");
            assert_eq!(tally.new, tally.keys_fresh, "{line}");
            assert_eq!(tally.new + tally.dup, tally.replies, "{line}");
            assert_eq!(found.latency_ns.len(), tally.replies, "{line}");
            assert_eq!(tally.errors, 0, "{line}");
        }
    }

    #[test]
    fn warming_up_is_counted_apart() {
        // How much a closed loop gets done while warming up is up to the machine; a schedule
        // says it exactly.
        for (line, warmup_want, measured_want) in [
            ("-n 200", None, 200),
            ("-n 200 --rate 2k", Some(100), 200),
            ("--duration 50ms --rate 2k", Some(100), 100),
        ] {
            let line = format!("--warmup 50ms -c 4 -p 2 -t 2 {line}");
            let found = outcome(deduplicating(), &line).unwrap();
            let (warmup, measured) = (&found.warmup, &found.measured);
            assert_eq!(
                warmup.requests,
                warmup_want.unwrap_or(warmup.requests),
                "{line}"
            );
            assert_eq!(measured.requests, measured_want, "{line}");
            assert_eq!(warmup.requests, warmup.replies, "{line}");
            assert_eq!(measured.requests, measured.replies, "{line}");
            assert_eq!(found.latency_ns.len(), measured.replies, "{line}");
            assert_eq!(
                warmup.new + measured.new,
                warmup.keys_fresh + measured.keys_fresh,
                "{line}"
            );
        }
    }

    #[test]
    fn error_replies_are_counted_and_do_not_end_the_run() {
        let full = server(|stream| {
            let mut replies = stream.try_clone().unwrap();
            for _ in BufReader::new(stream).lines() {
                if replies.write_all(b"ERR FULL no room\n").is_err() {
                    return;
                }
            }
        });
        let found = outcome(full, "-n 500 -c 3").unwrap();
        assert_eq!(found.measured.errors, 500);
        assert_eq!(found.measured.replies, 500);
        let first = found.measured.first_error.as_deref();
        assert_eq!(first, Some("ERR FULL no room"));
    }

    #[test]
    fn a_server_that_goes_away_ends_the_run() {
        let leaving = server(|stream| {
            let mut replies = stream.try_clone().unwrap();
            for _ in BufReader::new(stream).lines().take(10) {
                if replies.write_all(b"NEW\n").is_err() {
                    return;
                }
            }
        });
        for line in [
            "-c 2 -t 2 -p 4 --duration 1d",
            "-c 2 --rate 1k --duration 1d",
        ] {
            let error = failure(leaving, line);
            assert!(error.contains("lost a connection to 127.0.0.1"), "{error}");
        }
    }

    #[test]
    fn a_silent_server_is_given_up_on() {
        let silent = server(|stream| {
            for line in BufReader::new(stream).lines() {
                drop(line);
            }
        });
        for line in ["", "--rate 100"] {
            let error = failure(silent, &format!("--timeout 200ms -c 2 {line}"));
            assert!(error.contains("has not answered for 200ms"), "{error}");
        }
    }

    #[test]
    fn replies_nobody_asked_for_end_the_run() {
        let eager = server(|mut stream| {
            let mut first = [0];
            let _ = io::Read::read(&mut stream, &mut first);
            let _ = stream.write_all(&b"DUP\n".repeat(50));
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        let error = failure(eager, "-c 1 -p 2 -n 10");
        assert!(
            error.contains("more replies than it got requests"),
            "{error}"
        );
    }

    #[test]
    fn a_refused_connection_is_one_clear_line() {
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        for line in ["", "-t 4"] {
            let error = failure(nobody, line);
            let start = format!("cannot connect to {nobody}: ");
            assert!(
                error.starts_with(&start) && !error.contains('\n'),
                "{error}"
            );
        }
        let unknown = run(plan("--server host.invalid:1").unwrap(), None).unwrap_err();
        assert!(
            unknown.to_string().starts_with("cannot resolve"),
            "{unknown}"
        );
    }

    #[test]
    fn a_unix_socket_serves_as_well() {
        let path = std::env::temp_dir().join(format!("onced-bench-{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut replies = stream.try_clone().unwrap();
            for _ in BufReader::new(stream).lines() {
                replies.write_all(b"PONG\n").unwrap();
            }
        });
        let line = format!(
            "--server unix:{} --command ping -c 1 -n 300",
            path.display()
        );
        let found = run(plan(&line).unwrap(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.unwrap().measured.pong, 300);
    }
}
