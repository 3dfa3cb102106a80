//! The examples of the command table, which `HELP` and the documentation show, are true.

mod common;

use common::TestServer;
use common::scenario::words;
use onced::command::spec::{Home, RESP_PREFIX, verbs};

#[test]
fn every_example_gets_the_reply_it_states() {
    let mut examples = 0;
    for spec in verbs().map(onced::command::spec::Verb::spec) {
        let (request, reply) = spec.example;
        if request.is_empty() {
            continue;
        }
        examples += 1;
        assert!(
            request.starts_with(spec.name),
            "{request} is no example of {}",
            spec.name
        );
        let server = TestServer::start();
        let lines = server.connect().ask_all(request).join("\n");
        if spec.home == Home::Native {
            assert_eq!(lines, reply, "{request}");
        }
        let server = TestServer::start();
        let name = match spec.home {
            Home::Native => format!("{RESP_PREFIX}{request}"),
            Home::Redis => request.to_owned(),
        };
        let words = words(&name);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let resp = server.connect().call(&words);
        // The same answer in RESP's types.
        let same = match reply {
            "NIL" => "nil".to_owned(),
            "BYE" => "+OK".to_owned(),
            _ if reply.starts_with("ROWS ") => continue,
            _ => reply.to_owned(),
        };
        let number = same.strip_prefix("OK ").unwrap_or(&same);
        let forms = [
            same.clone(),
            format!("+{same}"),
            format!("${same}"),
            format!(":{number}"),
        ];
        assert!(forms.contains(&resp), "{name}: {resp} instead of {reply}");
    }
    assert!(examples > 8, "only {examples} examples");
}

#[test]
fn every_verb_of_this_protocol_whose_answer_can_be_foretold_has_an_example() {
    // These tell of the moment or of the whole server, give tokens, or need a log.
    const WITHOUT: [&str; 7] = [
        "STATS", "TIME", "VERSION", "HELP", "SYNC", "BEGIN", "MBEGIN",
    ];
    for spec in verbs().map(onced::command::spec::Verb::spec) {
        let has_example = !spec.example.0.is_empty();
        if spec.home == Home::Native && !WITHOUT.contains(&spec.name) {
            assert!(has_example, "{} has no example", spec.name);
        }
    }
}
