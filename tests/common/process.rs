//! The real binary as a process of its own: started, killed, stopped, and what it said.
//!
//! Every directory is removed and every process ended when its owner is dropped, also by a panic.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Client, PATIENCE, eventually};

/// Resident memory of a process, while it is there.
pub fn resident_bytes(process: u32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    Some(kib << 10)
}

/// Allows this process so many, where it has both ends of connections.
pub fn allow_open_files(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    let files = files.max(limit.current.unwrap_or(u64::MAX));
    let raised = Rlimit {
        current: Some(files),
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

/// A directory of a test's own, which is gone when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("onced-{name}-{}-{number}", std::process::id()));
        let _there_may_be_none = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _nothing_else_can_be_done = fs::remove_dir_all(&self.0);
    }
}

/// A file system of a mebibyte, which is gone when this is dropped.
pub struct SmallDisk(Scratch);

impl SmallDisk {
    /// `None`, and a word about it, where nothing can be mounted.
    pub fn mount() -> Option<Self> {
        let scratch = Scratch::new("small");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "onced-test"])
            .arg(scratch.path())
            .output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            eprintln!("SKIPPED: nothing can be mounted here, so there is no small disk");
            return None;
        }
        Some(Self(scratch))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Nobody may write to it any more, the superuser included.
    pub fn make_read_only(&self) {
        let made = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(self.path())
            .status();
        assert!(made.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that is still running may have it open.
        let _nothing_else_can_be_done = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A server in a process of its own.
pub struct Process {
    pub address: String,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listening: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `onced serve` over a data directory, and waits until it has read what is in there.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        let server = Self::begin(data, arguments);
        server.wait_until_loaded();
        server
    }

    /// Starts it, and waits until it listens.
    pub fn begin(data: &Path, arguments: &[&str]) -> Self {
        let mut command = serve(&[]);
        command.arg("--data-dir").arg(data).args(arguments);
        Self::spawn(command)
    }

    /// As [`Process::begin`], with any command that comes to run a server.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let saying = Arc::clone(&said);
        let listening = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                saying.lock().unwrap().push(line);
            }
        });
        let mut server = Self {
            address: String::new(),
            child,
            said,
            listening: Some(listening),
        };
        let mut address = None;
        eventually("the server listens", || {
            let said = server.said.lock().unwrap();
            address = said
                .iter()
                .find_map(|line| Some(line.split_once("listening on ")?.1.trim().to_owned()));
            drop(said);
            assert!(
                address.is_some() || server.child.try_wait().unwrap().is_none(),
                "the server ended: {}",
                server.said()
            );
            address.is_some()
        });
        server.address = address.unwrap_or_default();
        server
    }

    pub fn wait_until_loaded(&self) {
        let mut client = self.connect();
        eventually("the log is read", || {
            let pong = client.ask("PING");
            assert!(pong == "PONG" || pong.starts_with("ERR LOADING"), "{pong}");
            pong == "PONG"
        });
    }

    pub fn connect(&self) -> Client {
        self.try_connect().unwrap()
    }

    pub fn try_connect(&self) -> std::io::Result<Client> {
        TcpStream::connect(&self.address).map(Client::new)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote to standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// `kill -9`.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.all_said()
    }

    /// `SIGTERM`; the server must end with status 0.
    pub fn stop(mut self) -> String {
        signal("TERM", self.child.id());
        let status = self.wait();
        let said = self.all_said();
        assert_eq!(status.code(), Some(0), "{said}");
        said
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn all_said(&mut self) -> String {
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
        self.said()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _as_above = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server said:\n{}\n---", self.said());
        }
    }
}

/// `onced serve` on a port of its own; `ONCED_BINARY` names another build of it.
pub fn serve(arguments: &[&str]) -> Command {
    serve_within("1GiB", arguments)
}

/// The same with another bound on its memory.
pub fn serve_within(memory: &str, arguments: &[&str]) -> Command {
    let binary = std::env::var_os("ONCED_BINARY");
    let mut command = Command::new(binary.unwrap_or(env!("CARGO_BIN_EXE_onced").into()));
    command.args(["serve", "--listen", "127.0.0.1:0", "--max-memory", memory]);
    command.args(["--workers", "2"]).args(arguments);
    command
}

/// How a server that cannot start ends: its status, and all that it said.
pub fn refusal(data: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = serve(&[]);
    let mut child = command
        .arg("--data-dir")
        .arg(data)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut error = child.stderr.take().unwrap();
    let began = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the server runs over {}", data.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut error, &mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

pub fn signal(name: &str, process: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// All files of a directory, and their bytes.
pub fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// The segments in a data directory, in order.
pub fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    segments.sort();
    segments
}

/// Copies a directory's files in the order of their names; what goes away meanwhile was not to be copied.
/// The copy's directory is its owner's alone, as a server would have made it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    let mut names: Vec<_> = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let _it_may_be_gone = fs::copy(from.join(&name), to.join(&name));
    }
}

/// Numbers that look random; the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
