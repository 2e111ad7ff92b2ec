//! HTTP/1.1 byte by byte: the cases of `tests/framing/*.yaml`, between a raw client and a strict parser that is not ours.
//!
//! Whatever a client writes, the edge refuses it, or the target's parser sees exactly the requests that were authorized.

use std::fmt::Write as _;
use std::path::Path;

use futures::StreamExt as _;
use serde::Deserialize;

use crate::harness::llhttp::Seen;
use crate::harness::{Answer, Connection, Edge, Llhttp, eventually};

/// At least so many there are to be. A corpus does not shrink unnoticed.
const CASES: usize = 250;
/// Connections at a time.
const AT_ONCE: usize = 192;

/// What is sent, and what must come of it. `tests/framing/README.md` explains the fields.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    see: Option<String>,
    send: String,
    answers: Vec<u16>,
    #[serde(default)]
    seen: Vec<String>,
    #[serde(default)]
    cut: Option<String>,
    #[serde(default)]
    with: Vec<String>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    after: Option<After>,
}

/// What becomes of a request that follows at once on the same connection.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum After {
    Served,
    Closed,
    /// It would be a part of this one.
    Unfinished,
}

/// A case as it is run.
struct Run {
    case: Case,
    /// The client's address, by which the target's side is told apart.
    client: String,
    bytes: Vec<u8>,
    /// Method, target, body.
    expected: Vec<Vec<u8>>,
    answers: Vec<u16>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_sees_the_requests_that_were_authorized_and_nothing_else() {
    let cases = corpus();
    assert!(cases.len() >= CASES, "{} cases", cases.len());
    let origin = Llhttp::start().await;
    let edge = Edge::to(&origin)
        .unhurried()
        .edge("limits: { header_timeout: 2s, body_timeout: 1s, keepalive_timeout: 1s, invalid_credentials_per_minute: 0 }")
        .start()
        .await;

    let runs: Vec<Run> = cases.into_iter().enumerate().flat_map(|(at, case)| runs(at, case)).collect();
    let sent: Vec<Vec<Answer>> = futures::stream::iter(&runs)
        .map(async |run| {
            let mut client = Connection::from(&run.client, edge.address()).await;
            client.send(&run.bytes).await;
            client.answers(|at| run.case.seen.get(at).is_some_and(|seen| seen.starts_with("HEAD "))).await
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    // The target has told all that it met once it has told of a request that came after all of it.
    edge.get("/api/demo/last").bearer("k1").await.expect_granted(200);
    eventually("the target's last word", async || origin.requests().iter().any(|seen| seen.target.0 == b"/last")).await;

    let met = origin.requests();
    let mut wrong = String::new();
    for (run, answers) in runs.iter().zip(&sent) {
        let seen: Vec<&Seen> =
            met.iter().filter(|seen| seen.all("x-forwarded-for") == [run.client.as_bytes()]).collect();
        if let Err(problem) = run.judge(answers, &seen) {
            let (name, see) = (&run.case.name, run.case.see.as_deref().unwrap_or("the contract"));
            let raw = shown(&run.bytes);
            let _ = writeln!(
                wrong,
                "=== {name} ({see})\n--- {problem}\n--- sent\n{raw}\n--- answered\n{answers:?}\n--- seen\n{seen:#?}\n"
            );
        }
    }
    let strangers: Vec<&Seen> = met
        .iter()
        .filter(|seen| {
            !runs.iter().any(|run| seen.all("x-forwarded-for") == [run.client.as_bytes()]) && seen.target.0 != b"/last"
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} runs\n{wrong}", wrong.matches("=== ").count(), runs.len());
    assert!(strangers.is_empty(), "requests of nobody: {strangers:#?}");
    assert!(origin.errors().is_empty(), "what the target could not read: {:#?}", origin.errors());
    assert!(!edge.stderr().contains("panicked"), "{}", edge.stderr());
    edge.admin("/livez").await.expect_status(200);
    eventually("no request is left", async || edge.metric("requestrocket_requests_in_flight").await == Some(0.0)).await;
}

/// All cases, in the order of their files.
fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/framing");
    let entries = std::fs::read_dir(folder).expect("the corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of the corpus");
        cases.extend(
            serde_yaml::from_str::<Vec<Case>>(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        );
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|one, next| one < next), "two cases of one name: {names:#?}");
    cases
}

/// The case as it stands, and once more with a good request right behind it.
fn runs(at: usize, case: Case) -> Vec<Run> {
    let host = format!("{}.{}", at / 250, at % 250 + 1);
    let bytes = bytes(&case.send);
    let expected: Vec<Vec<u8>> = case.seen.iter().map(|seen| self::bytes(seen)).map(with_body).collect();
    let broken = case.answers.last().is_none_or(|status| matches!(status, 400 | 408 | 413));
    let after = case.after.unwrap_or(if broken { After::Closed } else { After::Served });
    let alone =
        Run { client: format!("127.1.{host}"), bytes, expected, answers: case.answers.clone(), case: case.clone() };
    if after == After::Unfinished {
        return vec![alone];
    }
    let mut followed = Run {
        client: format!("127.2.{host}"),
        bytes: [&alone.bytes[..], &self::bytes("{next}")].concat(),
        expected: alone.expected.clone(),
        answers: alone.answers.clone(),
        case: Case { name: format!("{}, and a request behind it", case.name), ..case },
    };
    if after == After::Served {
        followed.expected.push(b"GET /next ".to_vec());
        followed.answers.push(200);
    }
    vec![alone, followed]
}

impl Run {
    fn judge(&self, answers: &[Answer], seen: &[&Seen]) -> Result<(), String> {
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        if statuses != self.answers {
            return Err(format!("answers {statuses:?} and should answer {:?}", self.answers));
        }
        let whole: Vec<Vec<u8>> = seen.iter().filter(|seen| !seen.cut).map(|seen| line(seen)).collect();
        if whole != self.expected {
            let shown =
                |lines: &[Vec<u8>]| lines.iter().map(|line| line.escape_ascii().to_string()).collect::<Vec<_>>();
            return Err(format!("the target saw {:?} and should see {:?}", shown(&whole), shown(&self.expected)));
        }
        let cut = self.case.cut.as_ref().map(|cut| bytes(cut));
        for seen in seen.iter().filter(|seen| seen.cut) {
            let begun = [seen.method.as_bytes(), b" ", &seen.target.0].concat();
            if Some(&begun) != cut.as_ref() {
                return Err(format!("`{}` began at the target", begun.escape_ascii()));
            }
        }
        seen.iter().try_for_each(|seen| self.inspect(seen))
    }

    /// What holds for everything that ever reaches a target.
    fn inspect(&self, seen: &Seen) -> Result<(), String> {
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        must(seen.all("authorization") == [b"Bearer t1"], "its one credential is the target's")?;
        must(
            seen.all("host").len() == 1 && seen.all("host")[0].starts_with(b"127.0.0.1:"),
            "its one host is the target",
        )?;
        let framings = [seen.all("content-length"), seen.all("transfer-encoding")].concat();
        must(framings.len() <= 1, "it has one framing")?;
        must(
            framings.iter().all(|framing| *framing == b"chunked" || framing.iter().all(u8::is_ascii_digit)),
            "of two kinds",
        )?;
        must(seen.all("x-forwarded-proto") == [b"http"], "it came by http")?;
        must(seen.trailers.is_empty(), "it has no trailers")?;
        must(seen.all("requestrocket-proxy-code") == [b"proxy-access-granted"], "it is labelled once")?;
        for (name, value) in &seen.headers {
            let twin = name.to_ascii_lowercase().replace('_', "-");
            must(*name == name.replace('_', "-") || seen.all(&twin).is_empty(), "no field has a twin")?;
            must(!value.0.windows(2).any(|two| two == b"k1"), "no field holds the client's credential")?;
        }
        for field in &self.case.with {
            let (name, value) = field.split_once(": ").expect("`with` has `name: value`");
            if seen.target.0 != b"/next" {
                must(seen.all(name) == [bytes(value).as_slice()], &format!("`{field}` is there"))?;
            }
        }
        for name in &self.case.without {
            must(seen.all(name).is_empty(), &format!("`{name}` is not there"))?;
        }
        Ok(())
    }
}

/// `METHOD target body`, as cases write it.
fn line(seen: &Seen) -> Vec<u8> {
    [seen.method.as_bytes(), b" ", &seen.target.0, b" ", &seen.body.0].concat()
}

/// The bytes that a case writes: line breaks are for the eye; `\r`, `\n`, `\t`, `\\`, `\{`, `\xHH` are what they are in C;
/// `{host}`, `{auth}`, `{next}`, `{hidden}` stand for the lines below, and `{text*7}` for seven times the text.
fn bytes(written: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = written;
    while let Some(character) = rest.chars().next() {
        assert!(character.is_ascii(), "a byte that is not ASCII is written as \\xHH: {written}");
        rest = &rest[1..];
        match character {
            '\n' => {}
            '\\' => {
                let (escape, after) = rest.split_at(1);
                rest = after;
                bytes.push(match escape {
                    "r" => b'\r',
                    "n" => b'\n',
                    "t" => b'\t',
                    "\\" => b'\\',
                    "{" => b'{',
                    "x" => {
                        let (digits, after) = rest.split_at(2);
                        rest = after;
                        u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("\\x{digits}: {written}"))
                    }
                    _ => panic!("\\{escape}: {written}"),
                });
            }
            '{' => {
                let (name, after) = rest.split_once('}').unwrap_or_else(|| panic!("`{{` without `}}`: {written}"));
                rest = after;
                bytes.extend(match name {
                    "host" => b"Host: edge.test\r\n".to_vec(),
                    "auth" => b"Authorization: Bearer k1\r\n".to_vec(),
                    "next" => {
                        b"GET /api/demo/next HTTP/1.1\r\nHost: edge.test\r\nAuthorization: Bearer k1\r\n\r\n".to_vec()
                    }
                    "hidden" => b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                    _ => {
                        let (text, times) = name.rsplit_once('*').unwrap_or_else(|| panic!("{{{name}}}: {written}"));
                        self::bytes(text).repeat(times.parse().unwrap_or_else(|_| panic!("{{{name}}}: {written}")))
                    }
                });
            }
            _ => bytes.push(character as u8),
        }
    }
    bytes
}

/// Raw bytes, a line for each line feed, long ones shortened.
fn shown(bytes: &[u8]) -> String {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| {
        let text = line.escape_ascii().to_string();
        if text.len() > 300 { format!("{} ... [{} bytes]", &text[..300], line.len()) } else { text }
    });
    lines.take(60).collect::<Vec<_>>().join("\n")
}

/// The same with the space that separates a body from the rest, where it has none.
fn with_body(mut seen: Vec<u8>) -> Vec<u8> {
    if seen.iter().filter(|byte| **byte == b' ').count() < 2 {
        seen.push(b' ');
    }
    seen
}
