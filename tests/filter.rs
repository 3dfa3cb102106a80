//! `onced filter` as a process: compared with awk on generated lines, and against a server.
//!
//! The server is a stand-in that speaks just `USE` and `MSEEN`, written from the protocol's
//! description and not with the project's own parser. Set `ONCED_TEST_SERVER` to an address to
//! run the same tests against a real one.

#![allow(clippy::unwrap_used, reason = "test code: a panic is the report")]

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

const LINES: usize = 30_000;

/// A directory of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("onced-{test}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Repeatable numbers below `bound` (`SplitMix64`).
fn numbers(seed: u64, bound: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    })
}

/// A log whose lines and request ids repeat; some lines are empty or have no id.
fn log() -> String {
    let mut log = String::new();
    for number in numbers(7, 8_000).take(LINES) {
        match number % 20 {
            0 => log.push('\n'),
            1 => writeln!(
                log,
                "  worker\t{} starts \\ \"now\" caf\u{e9}",
                number % 100
            )
            .unwrap(),
            _ => writeln!(
                log,
                "INFO nova-{} [req-{:08x}-1a2b-4c3d-8e9f-{:012x} -] GET /v2 {}",
                number % 3,
                number % 2_000,
                number % 2_000,
                number
            )
            .unwrap(),
        }
    }
    log
}

fn onced(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onced"));
    command.arg("filter").args(args);
    command
}

fn stdout(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What awk says; in the C locale its characters are bytes.
fn awk(program: &str, file: &str) -> Vec<u8> {
    stdout(Command::new("awk").env("LC_ALL", "C").args([program, file]))
}

/// Runs the filter with this standard input.
fn filter(args: &[&str], input: &[u8]) -> Output {
    let mut child = start(args);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The filter may end with an error before it has read everything.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

fn start(args: &[&str]) -> Child {
    onced(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8]) {
    assert!(
        ours == theirs,
        "ours has {} bytes, theirs {}; they part at byte {:?}",
        ours.len(),
        theirs.len(),
        ours.iter().zip(theirs).position(|(a, b)| a != b)
    );
}

const UNIQUE_LINES: &str = "!seen[$0]++";

/// The first line of every request id, and every line without one.
const UNIQUE_REQUESTS: &str = r#"{
    at = index($0, "req-")
    id = at ? substr($0, at, 40) : ""
    if (length(id) < 40 || !seen[id]++) print
}"#;

#[test]
fn whole_lines_equal_awk() {
    let scratch = Scratch::new("whole-lines");
    let path = scratch.file("log", log());
    let want = awk(UNIQUE_LINES, &path);
    assert_same(&stdout(&mut onced(&[&path])), &want);
    assert_same(&filter(&[], log().as_bytes()).stdout, &want);
    assert_same(&filter(&["-"], log().as_bytes()).stdout, &want);
    assert_same(&stdout(&mut onced(&[&path, &path])), &want);
}

#[test]
fn a_pattern_equals_awk() {
    let scratch = Scratch::new("pattern");
    let path = scratch.file("log", log());
    let pattern = "req-[0-9a-f-]{36}";
    let want = awk(UNIQUE_REQUESTS, &path);
    assert_same(&stdout(&mut onced(&["--key-regex", pattern, &path])), &want);
    // By the group alone nothing changes: the text around it is always the same.
    let grouped = "req-([0-9a-f-]{36})";
    assert_same(&stdout(&mut onced(&["--key-regex", grouped, &path])), &want);

    let kept = stdout(&mut onced(&[
        "--drop-keyless",
        "--key-regex",
        pattern,
        &path,
    ]));
    let want = awk(
        r#"{ at = index($0, "req-") } at && !seen[substr($0, at, 40)]++"#,
        &path,
    );
    assert_same(&kept, &want);
}

#[test]
fn fields_equal_awk() {
    let scratch = Scratch::new("fields");
    let path = scratch.file("log", log());
    let want = awk("NF < 2 || !seen[$2]++", &path);
    assert_same(&stdout(&mut onced(&["--field", "2", &path])), &want);
    let want = awk(r#"BEGIN { FS = "-" } $4 == "" || !seen[$4]++"#, &path);
    assert_same(
        &stdout(&mut onced(&["--field", "4", "-d", "-", &path])),
        &want,
    );
}

#[test]
fn json_values_are_keys() {
    let input = "\
        {\"id\": 1, \"x\": 1}\n\
        {\"x\": 2, \"id\":1}\n\
        {\"id\": 10e-1}\n\
        {\"id\": \"1\"}\n\
        {\"id\": \"\\u0031\"}\n\
        {\"id\": \"\\ud83d\"}\n\
        {\"id\": \"\\uD83D\"}\n\
        {\"id\": 10000000000000000000000001}\n\
        {\"id\": 10000000000000000000000002}\n\
        {\"id\": [1, 2]}\n\
        {\"id\": [1,2]}\n\
        {\"id\": null}\n\
        not json\n\
        not json\n";
    // The number and the string that looks like it are two keys, however they are spelled.
    let kept = "\
        {\"id\": 1, \"x\": 1}\n\
        {\"id\": \"1\"}\n\
        {\"id\": \"\\ud83d\"}\n\
        {\"id\": 10000000000000000000000001}\n\
        {\"id\": 10000000000000000000000002}\n\
        {\"id\": [1, 2]}\n";
    let keyless = "{\"id\": null}\nnot json\nnot json\n";
    let output = filter(&["--json", "/id"], input.as_bytes());
    assert_same(&output.stdout, format!("{kept}{keyless}").as_bytes());
    let output = filter(
        &["--json", "/id", "--drop-keyless", "--stats"],
        input.as_bytes(),
    );
    assert_same(&output.stdout, kept.as_bytes());
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(
        summary.starts_with("read 14, kept 6, dropped 8, keyless 3, "),
        "{summary}"
    );
}

#[test]
fn bytes_are_kept() {
    for (input, want) in [
        // A line end is no part of the key, whichever it is; a mark before the first line neither.
        (&b"a\r\na\na\r\n"[..], &b"a\r\n"[..]),
        (b"a\r\r\na\r\n", b"a\r\r\na\r\n"),
        (
            b"\xef\xbb\xbfa\na\n\xef\xbb\xbfa\n",
            b"\xef\xbb\xbfa\n\xef\xbb\xbfa\n",
        ),
        (b"\0\n\0\n\0\0\n", b"\0\n\0\0\n"),
        (b"\xff\xfe\n\xff\n\xff\xfe\n", b"\xff\xfe\n\xff\n"),
        (b"a\n\n\nb\n\n", b"a\n\nb\n"),
        (b"a\nb", b"a\nb"),
        (b"a\nb\na", b"a\nb\n"),
        (b"\n", b"\n"),
        (b"", b""),
    ] {
        let output = filter(&[], input);
        assert_same(&output.stdout, want);
        assert!(output.status.success() && output.stderr.is_empty());
    }
}

#[test]
fn lines_may_end_with_nul() {
    for (input, want) in [
        (&b"a\0b\na\0a\0b\na"[..], &b"a\0b\na\0"[..]),
        (b"a\r\0a\0", b"a\r\0a\0"),
        (b"\n\0\0\0\n\0", b"\n\0\0"),
        (b"a", b"a"),
    ] {
        assert_same(&filter(&["-z"], input).stdout, want);
        assert_same(&filter(&["--null"], input).stdout, want);
    }
    let scratch = Scratch::new("nul-files");
    let (first, second) = (scratch.file("1", "a"), scratch.file("2", "b"));
    assert_same(&stdout(&mut onced(&["-z", &first, &second])), b"a\0b");
    let fields = filter(&["-z", "--field", "2"], b"x 1\ny\0z 1\ny\0z 2\0");
    assert_same(&fields.stdout, b"x 1\ny\0z 2\0");
}

#[test]
fn csv_fields_may_have_quotes_delimiters_and_line_ends() {
    let header = "name,id\r\n";
    let (john, jane) = ("\"Smith, John\",1\r\n", "\"Smith, Jane\",2\r\n");
    let (long, quoted) = ("\"two\nlines\",3\n", "\"3\",\"1\"\n");
    let input = [header, john, jane, long, quoted, john, long].concat();
    let by_name = filter(&["--csv", "--field", "name"], input.as_bytes());
    assert_same(
        &by_name.stdout,
        [header, john, jane, long, quoted].concat().as_bytes(),
    );
    let by_id = filter(&["--csv", "--field", "2", "--stats"], input.as_bytes());
    assert_same(
        &by_id.stdout,
        [header, john, jane, long].concat().as_bytes(),
    );
    let told = String::from_utf8(by_id.stderr).unwrap();
    assert!(
        told.starts_with("read 7, kept 4, dropped 3, keyless 0, "),
        "{told}"
    );
    let all = filter(&["--csv", "--no-header", "--field", "1"], input.as_bytes());
    assert_same(
        &all.stdout,
        [header, john, jane, long, quoted].concat().as_bytes(),
    );

    // The header comes once, whatever its place in the other file and whether lines have keys.
    let scratch = Scratch::new("csv-files");
    let first = scratch.file("1", format!("\u{feff}{header}{john}"));
    let second = scratch.file("2", [header, jane, john].concat());
    let third = scratch.file("3", "id;name\n1;x\n");
    let args = ["--csv", "--field", "name", "--drop-keyless"];
    let kept = stdout(onced(&args).args([&first, &second]));
    assert_same(&kept, format!("\u{feff}{header}{john}{jane}").as_bytes());
    let kept = stdout(onced(&args).args(["-d", ";", &third]));
    assert_same(&kept, b"id;name\n1;x\n");

    let behind_blank = filter(
        &["--csv", "--field", "name"],
        format!("\r\n\n{input}").as_bytes(),
    );
    let want = ["\r\n\n", header, john, jane, long, quoted].concat();
    assert_same(&behind_blank.stdout, want.as_bytes());

    let missing = filter(&["--csv", "--field", "user"], input.as_bytes());
    assert_eq!(missing.status.code(), Some(2));
    let told = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(
        told,
        "onced: standard input: no column is called 'user'; there are: name, id\n"
    );
    let open = filter(&["--csv", "--field", "1"], b"a,b\n1,2\n\"3,4\n5,6\n");
    assert_eq!(open.status.code(), Some(2));
    assert_same(&open.stdout, b"a,b\n1,2\n");
    let told = String::from_utf8(open.stderr).unwrap();
    assert_eq!(
        told,
        "onced: line 3 of standard input: its quote is never closed\n"
    );
}

#[test]
fn bytes_that_are_no_utf8_are_no_end_of_a_match() {
    let input = b"u=J\xf6rg\nu=J\xfcrg\nu=J\xf6rg x\n";
    let output = filter(&["--key-regex", r"u=(\S+)"], input);
    assert_same(&output.stdout, b"u=J\xf6rg\nu=J\xfcrg\n");
}

/// Compresses by the tool of that name, which is there wherever this is tested.
fn packed(tool: &str, input: &[u8]) -> Vec<u8> {
    use flate2::write::GzEncoder;
    match tool {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(input).unwrap();
            encoder.finish().unwrap()
        }
        "bzip2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            encoder.write_all(input).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(input, 3).unwrap(),
    }
}

#[test]
fn compressed_inputs_are_read_decompressed() {
    let scratch = Scratch::new("packed");
    let log = log();
    let want = awk(UNIQUE_LINES, &scratch.file("log", &log));
    let half = log.len() / 2;
    for tool in ["gzip", "bzip2", "zstd"] {
        // Two pieces that were compressed apart and put together, as log rotation does.
        let mut bytes = packed(tool, &log.as_bytes()[..half]);
        bytes.extend(packed(tool, &log.as_bytes()[half..]));
        let path = scratch.file(tool, &bytes);
        assert_same(&stdout(&mut onced(&[&path])), &want);
        assert_same(&filter(&[], &bytes).stdout, &want);

        let cut = filter(&[], &bytes[..bytes.len() - 100]);
        assert_eq!(cut.status.code(), Some(2), "{tool}");
        let told = String::from_utf8(cut.stderr).unwrap();
        assert!(
            told.starts_with("onced: cannot read standard input: "),
            "{told}"
        );
    }
    let refused = filter(&[], b"\xfd7zXZ\0\0\x04");
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stdout.is_empty());
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("compressed with xz"), "{told}");
}

#[test]
fn a_closed_or_full_standard_output_is_told() {
    for (redirection, why) in [
        (">&-", "cannot write to standard output: it is closed"),
        (
            ">/dev/full",
            "cannot write the output: No space left on device",
        ),
    ] {
        let script = format!("printf 'a\\nb\\n' | \"$0\" filter {redirection}");
        let output = Command::new("bash")
            .args(["-c", &script, env!("CARGO_BIN_EXE_onced")])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with(&format!("onced: {why}")), "{told}");
    }
    // What was not asked is not lost; what writes nothing has no use for an output.
    for (command, status) in [
        ("seen k --server 127.0.0.1:1", 2),
        ("completions bash", 2),
        ("man", 2),
        ("config show", 2),
    ] {
        let output = Command::new("bash")
            .args([
                "-c",
                &format!("\"$0\" {command} >&-"),
                env!("CARGO_BIN_EXE_onced"),
            ])
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{command}: {told}");
        assert!(told.contains("it is closed"), "{command}: {told}");
    }
}

#[test]
fn files_do_not_run_into_each_other() {
    let scratch = Scratch::new("two-files");
    let (first, second) = (scratch.file("1", "a\nb"), scratch.file("2", "b\nc"));
    assert_same(&stdout(&mut onced(&[&first, &second])), b"a\nb\nc");
    assert_same(&stdout(&mut onced(&[&second, &first])), b"b\nc\na\n");
    let output = filter(&[&second, "-", &first], b"x\nc\n");
    assert_same(&output.stdout, b"b\nc\nx\na\n");
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let scratch = Scratch::new("closed-output");
    let lines: String = (0..500_000).fold(String::new(), |mut lines, number| {
        writeln!(lines, "line {number}").unwrap();
        lines
    });
    let path = scratch.file("log", lines);
    let mut child = start(&[&path]);
    let mut first = String::new();
    let mut output = BufReader::with_capacity(64, child.stdout.take().unwrap());
    output.read_line(&mut first).unwrap();
    drop(output);
    assert_eq!(first, "line 0\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn bad_arguments_and_files_end_with_status_2() {
    for args in [
        &["no/such/file"][..],
        &["."],
        &["--key-regex", "("],
        &["--json", "id"],
        &["--field", "0"],
        &["--field", "1", "--json", "/id"],
        &["--delimiter", ","],
        &["--field", "1", "--delimiter", "ab"],
        &["--field", "name"],
        &["--csv"],
        &["--csv", "--field", "0"],
        &["--csv", "--no-header", "--field", "name"],
        &["--csv", "--field", "1", "-d", "\""],
        &["--no-header", "--field", "1"],
        &["--csv", "--field", "1", "-z"],
        &["--ack"],
        &["--lease", "1s"],
        &["--server", "127.0.0.1:1", "--ack", "--lease", "0s"],
        &["--ttl", "60"],
        &["--ttl", "0s"],
        &["--ns", "jobs"],
        &["--server", "nowhere"],
    ] {
        let output = filter(args, b"a\n");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let one_line = filter(&["--key-regex", "(", "-"], b"").stderr;
    assert_eq!(str::from_utf8(&one_line).unwrap().lines().count(), 1);
}

/// Each line must come out while the input is still open.
fn answers_at_once(args: &[&str]) {
    let mut child = start(args);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for (sent, want) in [("a\n", "a\n"), ("a\nb\n", "b\n"), ("c\na\nb", "c\n")] {
        input.write_all(sent.as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, want);
    }
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(child.wait().unwrap().success());
}

#[test]
fn slow_input_is_answered_at_once() {
    answers_at_once(&[]);
    let (server, ns) = server();
    answers_at_once(&["--server", &server, "--ns", &ns]);
}

#[test]
fn a_server_gives_the_same_answer_as_awk() {
    let scratch = Scratch::new("server");
    let path = scratch.file("log", log());
    let (server, ns) = server();
    let by_server = ["--server", &server, "--ttl", "1h", "--ns"];

    let mut command = onced(&by_server);
    let kept = stdout(command.args([&ns, "--stats", &path]));
    assert_same(&kept, &awk(UNIQUE_LINES, &path));
    // The memory is shared: a second process drops everything, empty lines too.
    assert_same(&stdout(onced(&by_server).args([&ns, &path])), b"");

    let mut command = onced(&by_server);
    command.args([
        &format!("{ns}.2"),
        "--key-regex",
        "req-[0-9a-f-]{36}",
        &path,
    ]);
    assert_same(&stdout(&mut command), &awk(UNIQUE_REQUESTS, &path));
}

#[test]
fn two_processes_share_one_server() {
    let scratch = Scratch::new("shared");
    let path = scratch.file("log", log());
    let (server, ns) = server();
    let args = ["--server", &server, "--ns", &ns, &path];
    let other = onced(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut both = stdout(&mut onced(&args));
    both.extend(other.wait_with_output().unwrap().stdout);
    let mut kept: Vec<_> = both.split(|byte| *byte == b'\n').collect();
    kept.pop();
    let distinct: HashSet<_> = kept.iter().collect();
    assert_eq!(kept.len(), distinct.len(), "a line was kept twice");
    let want = awk(UNIQUE_LINES, &path);
    assert_eq!(kept.len(), want.split(|byte| *byte == b'\n').count() - 1);
}

#[test]
fn a_key_over_the_limit_costs_its_line_alone() {
    let (server, ns) = server();
    let args = ["--server", &server, "--ns", &ns, "--stats"];
    let mut input = format!("a\n\nb\n{}\n", "x".repeat(9_000));
    for number in 0..2_000 {
        writeln!(input, "L{number}").unwrap();
    }
    let output = filter(&args, input.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_same(&output.stdout, input.as_bytes());
    let told = String::from_utf8(output.stderr).unwrap();
    let (line, summary) = told.split_once('\n').unwrap();
    assert_eq!(
        line,
        "onced: line 4 of standard input: its key of 9000 bytes is over the server's limit; the line passes"
    );
    assert!(summary.contains("kept 2004, dropped 0, keyless 0, key too long 1, "));
    // All others are remembered; this one cannot be.
    let again = filter(&args, input.as_bytes()).stdout;
    assert_same(&again, format!("{}\n", "x".repeat(9_000)).as_bytes());
}

#[test]
fn a_key_that_could_not_be_stored_ends_it() {
    if std::env::var_os("ONCED_TEST_SERVER").is_some() {
        return; // A real server is not full at will.
    }
    let (server, ns) = server();
    let args = ["--server", &server, "--ns", &ns];
    let output = filter(&args, b"a\nb\nunstorable\nc\n");
    assert_eq!(output.status.code(), Some(2));
    // The line behind it is marked as seen, so it is written.
    assert_same(&output.stdout, b"a\nb\nc\n");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("line 3 of standard input"), "{message}");
}

/// The address of a server, and a namespace of it that nobody used.
fn server() -> (String, String) {
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
    let ns = format!("filter-{}-{number}", std::process::id());
    let address = std::env::var("ONCED_TEST_SERVER").unwrap_or_else(|_| stand_in());
    (address, ns)
}

type Seen = Arc<Mutex<HashMap<Vec<u8>, HashSet<Vec<u8>>>>>;

fn stand_in() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || serve(stream.unwrap(), &seen));
        }
    });
    address
}

fn serve(mut stream: TcpStream, seen: &Seen) {
    let mut namespace = b"default".to_vec();
    let requests = BufReader::new(stream.try_clone().unwrap());
    for line in requests.split(b'\n') {
        let Ok(line) = line else { return };
        assert!(line.len() < 256 << 10, "a request of {} bytes", line.len());
        let words = words(&line);
        let mut reply = match &words[0][..] {
            b"USE" => {
                namespace.clone_from(&words[1]);
                b"OK".to_vec()
            }
            b"MSEEN" => {
                assert!([&b"-"[..], b"1h"].contains(&&words[1][..]));
                mseen(
                    &words[2..],
                    seen.lock().unwrap().entry(namespace.clone()).or_default(),
                )
            }
            _ => b"ERR UNKNOWN verb".to_vec(),
        };
        reply.push(b'\n');
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

fn mseen(keys: &[Vec<u8>], seen: &mut HashSet<Vec<u8>>) -> Vec<u8> {
    assert!((1..=1_000).contains(&keys.len()));
    if keys.iter().any(|key| key.len() > 8 << 10) {
        return b"ERR TOOBIG a key is longer than 8192 bytes".to_vec();
    }
    let letter = |key: &Vec<u8>| match &key[..] {
        b"" => panic!("an empty key"),
        b"unstorable" => b'E',
        _ if seen.insert(key.clone()) => b'N',
        _ => b'D',
    };
    keys.iter().map(letter).collect()
}

/// Splits a request into words, as the protocol describes them.
fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    while let Some(first) = bytes.next() {
        let mut word = Vec::new();
        match first {
            b' ' | b'\t' => continue,
            b'"' => loop {
                match bytes.next().expect("a closing quote") {
                    b'"' => break,
                    b'\\' => word.push(match bytes.next().unwrap() {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'x' => {
                            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                            u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                        }
                        escaped => escaped,
                    }),
                    byte => word.push(byte),
                }
            },
            _ => {
                word.push(first);
                while let Some(byte) = bytes.next_if(|byte| !b" \t".contains(byte)) {
                    word.push(byte);
                }
            }
        }
        words.push(word);
    }
    words
}
