//! The subcommands as a person or a script meets them: output, exit status, one clear line when wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::TestServer;
use common::process::{Process, Scratch};

fn onced(arguments: &[&str]) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn seen_exits_with_0_the_first_time_and_with_1_after() {
    let server = TestServer::start();
    let ask = |arguments: &[&str]| {
        let outcome = onced(&[&["seen", "--server", &server.address], arguments].concat());
        (
            outcome.status.code(),
            text(&outcome.stdout),
            text(&outcome.stderr),
        )
    };
    assert_eq!(
        ask(&["order 17", "--ttl", "1m"]),
        (Some(0), "NEW\n".into(), String::new())
    );
    assert_eq!(ask(&["order 17"]), (Some(1), "DUP\n".into(), String::new()));
    assert_eq!(
        ask(&["a", "b", "a"]),
        (Some(1), "NEW\nNEW\nDUP\n".into(), String::new())
    );
    assert_eq!(
        ask(&["-q", "order 17"]),
        (Some(1), String::new(), String::new())
    );
    assert_eq!(ask(&["order 17", "--ns", "other"]).0, Some(0));
    let (status, _, error) = ask(&["x", "--ttl", "60"]);
    assert_eq!((status, error.lines().count()), (Some(2), 1));
    assert!(error.contains("needs a unit"), "{error}");
}

#[test]
fn what_cannot_be_done_ends_with_one_line_and_status_2() {
    for arguments in [
        &["seen", "x", "--server", "127.0.0.1:1"][..],
        &["ping", "--server", "unix:/nonexistent/socket"],
        &["stats", "--server", "127.0.0.1:1"],
        &["repl", "--server", "127.0.0.1:1"],
        &["bench", "--server", "127.0.0.1:1"],
        &["filter", "/nonexistent/file"],
        &["filter", "--key-regex", "("],
        &["config", "check", "/nonexistent/file"],
        &["serve", "--config", "/nonexistent/file"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["serve", "--listen", "127.0.0.1:99999"],
        &["serve", "--max-memory", "lots"],
        &["serve", "--default-ttl", "60"],
        &["serve", "--workers", "0"],
        &["serve", "--listen", "unix:/nonexistent/folder/socket"],
    ] {
        let outcome = onced(arguments);
        let error = text(&outcome.stderr);
        assert_eq!(outcome.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(
            error.starts_with("onced: ") && error.lines().count() == 1,
            "{arguments:?}: {error}"
        );
        assert!(outcome.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_address_that_strangers_reach_needs_insecure() {
    let error = text(&onced(&["serve", "--listen", "0.0.0.0:0"]).stderr);
    assert!(error.contains("--insecure"), "{error}");
}

#[test]
fn ping_does_not_wait_for_ever() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let ping = onced(&["ping", "--server", &address, "--timeout", "200ms"]);
    assert_eq!(ping.status.code(), Some(2));
    assert_eq!(
        text(&ping.stderr),
        format!("onced: the server at {address} did not answer in time\n")
    );
}

#[test]
fn ping_stats_and_repl_talk_to_a_server() {
    let server = TestServer::start();
    let pong = onced(&["ping", "--server", &server.address]);
    assert!(pong.status.success() && text(&pong.stdout).starts_with("PONG from "));

    server.connect().ask("SEEN a 60s");
    let stats = text(&onced(&["stats", "--server", &server.address]).stdout);
    assert!(
        stats
            .lines()
            .any(|line| line.split_whitespace().eq(["new", "1"])),
        "{stats}"
    );
    let watched = onced(&[
        "stats",
        "--server",
        &server.address,
        "--watch",
        "--count",
        "2",
    ]);
    assert_eq!(text(&watched.stdout).lines().count(), 3);
    let unknown = onced(&["stats", "nowhere", "--server", &server.address]);
    assert_eq!(unknown.status.code(), Some(2));

    let mut repl = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(["repl", "--server", &server.address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    repl.stdin
        .take()
        .unwrap()
        .write_all(b"\xef\xbb\xbfSEEN b 60s\r\n\nHELP PING\nBEGIN b\nCOMPLETE b 1 LEN 5\nQUIT\nSEEN never 60s\n")
        .unwrap();
    let said = text(&repl.wait_with_output().unwrap().stdout);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        (lines[0], lines[1], lines.last()),
        ("NEW", "ROWS 4", Some(&"BYE"))
    );
    assert_eq!(lines[6..8], ["DONE 0 0", ""]);
    assert!(lines[8].starts_with("here a body stands in the line"));
}

#[test]
fn what_config_shows_is_what_config_checks() {
    let shown = onced(&["config", "show", "--workers", "3"]);
    let file = std::env::temp_dir().join(format!("onced-config-{}.toml", std::process::id()));
    fs::write(&file, &shown.stdout).unwrap();
    let path = file.to_str().unwrap();
    let checked = onced(&["config", "check", path]);
    assert_eq!(text(&checked.stdout), format!("{path}: ok\n"));
    assert_eq!(
        onced(&["config", "show", "--config", path]).stdout,
        shown.stdout
    );
    assert!(text(&shown.stdout).contains("workers = 3\n"));

    fs::write(&file, "workers = \"many\"\n").unwrap();
    let wrong = onced(&["config", "check", path]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        text(&wrong.stderr).contains("line 1"),
        "{}",
        text(&wrong.stderr)
    );
    fs::remove_file(&file).unwrap();
}

#[test]
fn completions_and_the_manual_page_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            text(&onced(&["completions", shell]).stdout).contains("filter"),
            "{shell}"
        );
    }
    assert!(text(&onced(&["man"]).stdout).contains("onced"));
    assert!(text(&onced(&["man", "serve"]).stdout).contains("max"));
    assert_eq!(onced(&["man", "nosuch"]).status.code(), Some(2));
    assert!(text(&onced(&["--help"]).stdout).contains("deduplication server"));
}

/// A pipeline of requests that does not fit one write once made the load generator spin for ever.
#[test]
fn bench_gets_through_pipelines_larger_than_its_buffer() {
    let server = TestServer::start();
    let began = Instant::now();
    let outcome = onced(&[
        "bench",
        "--server",
        &server.address,
        "--command",
        "mseen",
        "--batch",
        "200",
        "--pipeline",
        "64",
        "--connections",
        "2",
        "--requests",
        "1000",
        "--seed",
        "7",
        "--json",
    ]);
    assert!(outcome.status.success(), "{}", text(&outcome.stderr));
    let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(
        (&report["replies"], &report["errors"]),
        (&1_000.into(), &0.into())
    );
    assert_eq!(report["new"], report["expected_new"]);
    assert!(began.elapsed() < Duration::from_mins(1));
}

#[test]
fn serve_listens_where_it_says_and_leaves_nothing_behind() {
    let socket = std::env::temp_dir().join(format!("onced-{}.sock", std::process::id()));
    let listen = format!("unix:{}", socket.display());
    let mut server = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args([
            "serve",
            "--listen",
            &listen,
            "--listen",
            "127.0.0.1:0",
            "--max-memory",
            "64MiB",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    common::eventually("it answers", || {
        onced(&["ping", "--server", &listen]).status.success()
    });
    assert_eq!(
        onced(&["seen", "a", "--server", &listen]).status.code(),
        Some(0)
    );
    // A second server must not take the socket of a living one away.
    assert_eq!(
        onced(&["serve", "--listen", &listen]).status.code(),
        Some(2)
    );
    let stopped = Command::new("kill")
        .args(["-TERM", &server.id().to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

/// Signals were handled only some time after the server had said that it listens.
#[test]
fn a_server_that_listens_can_be_stopped() {
    for _ in 0..10 {
        let mut server = Command::new(env!("CARGO_BIN_EXE_onced"))
            .args(["serve", "--listen", "127.0.0.1:0", "--max-memory", "64MiB"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
        assert!(log.any(|line| line.unwrap().contains("listening on")));
        // Nobody reads the log any more either, which must not matter.
        drop(log);
        let killed = Command::new("kill")
            .args(["-TERM", &server.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        assert_eq!(server.wait().unwrap().code(), Some(0));
    }
}

/// A server that takes connections and says nothing: stopped, or its disk hangs.
#[test]
fn a_server_that_never_answers_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = silent.local_addr().unwrap().to_string();
    let path = std::env::temp_dir().join(format!("onced-silent-{}", std::process::id()));
    let _there_may_be_none = fs::remove_file(&path);
    let _silent_too = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let unix = format!("unix:{}", path.display());
    for server in [&tcp, &unix] {
        for (arguments, input) in [
            (&["ping"][..], ""),
            (&["stats"], ""),
            (&["stats", "--watch"], ""),
            (&["seen", "x"], ""),
            (&["repl"], "PING\n"),
            (&["filter"], "x\n"),
            (&["filter", "--ns", "other"], "x\n"),
            (&["import", "-"], "x\n"),
            (&["bench", "-n", "10"], ""),
        ] {
            let began = Instant::now();
            let mut child = Command::new(env!("CARGO_BIN_EXE_onced"))
                .args(arguments)
                .args(["--server", server, "--timeout", "300ms"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(input.as_bytes())
                .unwrap();
            // One that waits for ever is not waited for here.
            while child.try_wait().unwrap().is_none() {
                if began.elapsed() > Duration::from_secs(9) {
                    child.kill().unwrap();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let outcome = child.wait_with_output().unwrap();
            let error = text(&outcome.stderr);
            assert_eq!(outcome.status.code(), Some(2), "{arguments:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
            assert!(error.contains("answer"), "{arguments:?}: {error}");
        }
    }
    fs::remove_file(&path).unwrap();
}

/// What a person asked to be waited for is waited for, however short the time is for all else.
#[test]
fn a_reply_that_is_held_is_waited_for() {
    let server = TestServer::start();
    let mut holder = server.connect();
    assert!(holder.ask("BEGIN job 30s").starts_with("ERR ARGS"));
    assert!(holder.ask("BEGIN job LEASE 30s").starts_with("RUN "));
    let mut repl = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(["repl", "--server", &server.address, "--timeout", "100ms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = b"WAIT job TIMEOUT 400ms\nBEGIN job WAIT 400ms\nPING\n";
    repl.stdin.take().unwrap().write_all(asked).unwrap();
    let outcome = repl.wait_with_output().unwrap();
    let said = text(&outcome.stdout);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((lines[0], lines[2]), ("TIMEOUT", "PONG"), "{said}");
    assert!(lines[1].starts_with("BUSY "), "{said}");
    assert_eq!(outcome.status.code(), Some(0));
}

/// It left its keys, four million of them, in the default namespace of a server in use.
#[test]
fn a_load_leaves_nothing_behind() {
    let server = TestServer::start();
    let mut client = server.connect();
    let bench = |more: &[&str]| {
        let at = [
            "bench",
            "--server",
            &server.address,
            "-n",
            "2000",
            "-c",
            "3",
        ];
        onced(&[&at[..], more].concat())
    };
    for more in [&[][..], &["--protocol", "resp"], &["--command", "mseen"]] {
        let outcome = bench(more);
        assert!(outcome.status.success(), "{}", text(&outcome.stderr));
        assert_eq!(client.ask_all("NS LIST").len(), 2, "{more:?}");
        assert_eq!(client.gauge("keys"), 0, "{more:?}");
    }
    assert!(bench(&["--namespace", "load"]).status.success());
    assert_eq!(client.ask_all("NS LIST").len(), 3);
    assert!(bench(&["--keep"]).status.success());
    assert!(client.gauge("keys") > 2_000);

    // Also one that is ended in the middle, or whose server does not make namespaces.
    let mut child = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(["bench", "--server", &server.address, "--duration", "60s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    common::eventually("it has begun", || client.ask_all("NS LIST").len() == 4);
    common::process::signal("INT", child.id());
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert_eq!(client.ask_all("NS LIST").len(), 3);
    let closed = TestServer::with(|raw| raw.create_namespaces = Some(false));
    let refused = onced(&["bench", "--server", &closed.address, "-n", "10"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--namespace NAME uses one that is there"));
}

#[test]
fn a_server_on_another_machine_is_not_loaded_without_a_word() {
    for server in ["192.0.2.1:6623", "onced.invalid:6623"] {
        let outcome = onced(&["bench", "--server", server, "-n", "10"]);
        assert_eq!(outcome.status.code(), Some(2));
        let told = text(&outcome.stderr);
        assert!(
            told.contains("is not on this machine") && told.contains("--yes"),
            "{told}"
        );
    }
    let named = onced(&[
        "bench",
        "--server",
        "onced.invalid:6623",
        "-n",
        "10",
        "--yes",
    ]);
    assert!(!text(&named.stderr).contains("is not on this machine"));
}

#[test]
fn ping_waits_for_a_server_that_is_starting() {
    let outcome = onced(&["ping", "--server", "127.0.0.1:1", "--wait", "100ms"]);
    assert_eq!(outcome.status.code(), Some(2));
    assert_eq!(text(&outcome.stderr).lines().count(), 1);
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap().to_string();
    drop(place);
    let waiting = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(["ping", "--quiet", "--wait", "30s", "--server", &address])
        .spawn()
        .unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_onced"));
    serve.args(["serve", "--listen", &address, "--max-memory", "64MiB"]);
    let server = Process::spawn(serve);
    let waited = waiting.wait_with_output().unwrap();
    server.stop();
    assert!(waited.status.success());
}

/// A health check without a standard output found every server unwell.
#[test]
fn what_writes_nothing_needs_no_output() {
    let server = TestServer::start();
    for command in ["seen -q k", "ping -q"] {
        let outcome = Command::new("bash")
            .args(["-c", &format!("\"$0\" {command} --server \"$1\" >&-")])
            .args([env!("CARGO_BIN_EXE_onced"), &server.address])
            .output()
            .unwrap();
        assert!(outcome.status.success(), "{command}: {outcome:?}");
    }
}

/// A file that an editor of another system wrote once had other keys in `import` than in `filter`.
#[test]
fn a_file_has_the_same_keys_in_every_tool() {
    let server = TestServer::start();
    let scratch = Scratch::new("line-ends");
    let text: &[u8] = b"\xef\xbb\xbfid-1\r\nid-2\nid-3\r\n\xff\xfe";
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(text).unwrap();
    let packed = packed.finish().unwrap();
    for (name, bytes) in [("plain", text), ("packed", &packed)] {
        let path = scratch.join(name);
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap();
        let at = ["--server", &server.address];
        let mut client = server.connect();
        assert_eq!(client.ask(&format!("USE {name}")), "OK");
        let imported = onced(&[&["import", path, "--namespace", name], &at[..]].concat());
        assert!(imported.status.success(), "{imported:?}");
        let letters = client.ask(r#"PEEK id-1 id-2 id-3 "\xff\xfe""#);
        assert_eq!(letters, "DDDD");
        let filtered = onced(&[&["filter", path, "--ns", name], &at[..]].concat());
        assert_eq!(filtered.stdout, b"");
        // Keys on the command line are bytes as well.
        let key = OsStr::from_bytes(b"\xff\xfe");
        let seen = Command::new(env!("CARGO_BIN_EXE_onced"))
            .args(["seen", "--ns", name])
            .args(at)
            .arg(key)
            .output()
            .unwrap();
        assert_eq!(seen.stdout, b"DUP\n", "{seen:?}");
    }
}
