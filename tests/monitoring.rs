//! The files in conf/monitoring/ and the README's table of metrics, against what the real binary exports: a query that asks
//! for a metric or a label that does not exist shows an empty panel, or an alert that never fires, and says nothing.
//!
//! `promtool` judges the rest. Without it this fails: rules that nobody ran are rules that nobody may trust.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

const README: &str = include_str!("../README.md");
const DASHBOARD: &str = include_str!("../conf/monitoring/dashboard.json");
const ALERTS: &str = include_str!("../conf/monitoring/alerts.yaml");
const CASES: &str = include_str!("../conf/monitoring/alerts.test.yaml");

/// Where the values of labels are written.
const SOURCES: [&str; 2] = [include_str!("../src/refusal.rs"), include_str!("../src/observe/metrics.rs")];

/// What Prometheus itself adds to each series.
const SCRAPED: [&str; 2] = ["job", "instance"];

const PATIENCE: Duration = Duration::from_secs(60);

/// What the binary exports once each series exists.
static EXPORTED: LazyLock<String> = LazyLock::new(scrape);

#[test]
fn the_dashboard_asks_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let (mut queries, mut variables) = (Vec::new(), Vec::new());
    collect(&dashboard, "expr", &mut queries);
    collect(&dashboard["templating"], "query", &mut variables);
    assert!(queries.len() > 30 && variables.len() > 1, "{} and {}", queries.len(), variables.len());
    let wrong: Vec<_> = queries.iter().chain(&variables).flat_map(|query| problems(query)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_dashboard_writes_legends_of_labels_that_its_queries_have() {
    let label = Regex::new(r"\{\{(\w+)\}\}").expect("a regular expression");
    let families = families();
    for panel in panels() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query");
            let known: BTreeSet<_> = match grouping(query) {
                Some(labels) => labels,
                None => metrics(query).flat_map(|(name, _)| labels_of(&families, &name)).collect(),
            };
            for used in label.captures_iter(target["legendFormat"].as_str().unwrap_or_default()) {
                assert!(known.contains(&used[1]), "{}: {} of {query}", panel["title"], &used[0]);
            }
        }
    }
}

#[test]
fn the_dashboard_says_what_it_shows_in_which_unit() {
    let panels = panels();
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").map(|row| &row["title"]).collect();
    assert_eq!(rows, ["Traffic", "Refusals", "Latency", "Targets", "Limits", "Configuration", "Process"]);
    let mut ids = BTreeSet::new();
    for panel in &panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is taken");
        let known = ["row", "timeseries", "stat", "bargauge", "table"]; // all of Grafana itself
        assert!(known.iter().any(|kind| panel["type"] == *kind), "{title}: {}", panel["type"]);
        if panel["type"] != "row" {
            let mut datasources = Vec::new();
            collect(panel, "uid", &mut datasources);
            assert!(!datasources.is_empty() && datasources.iter().all(|uid| uid == "${datasource}"), "{title}");
            assert!(panel["fieldConfig"].to_string().contains("\"unit\""), "{title}: no unit");
        }
    }
}

#[test]
fn the_alerts_ask_for_what_is_exported() {
    let wrong: Vec<_> = alerts().iter().flat_map(|alert| problems(text(&alert["expr"]))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_alert_says_what_to_do_and_has_its_cases() {
    let cases: Value = serde_yaml::from_str(CASES).expect("YAML");
    let cases = cases["tests"].as_array().expect("a list");
    let comment = Regex::new(r"(?m)^ +# .+\n +for: ").expect("a regular expression");
    for alert in alerts() {
        let name = text(&alert["alert"]);
        assert!(["warning", "critical"].contains(&text(&alert["labels"]["severity"])), "{name}: severity");
        assert!(!text(&alert["for"]).is_empty(), "{name}: for");
        assert!(!text(&alert["annotations"]["summary"]).is_empty(), "{name}: summary");
        assert!(text(&alert["annotations"]["description"]).len() > 100, "{name}: its description says what to do");
        for (verb, fires) in [("fires ", true), ("keeps silent: ", false)] {
            let mut found = cases.iter().filter(|case| text(&case["name"]).starts_with(&format!("{name} {verb}")));
            let shows = |case: &Value| {
                let samples: Vec<_> = case["promql_expr_test"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .flat_map(|test| test["exp_samples"].as_array().expect("a list"))
                    .map(|sample| text(&sample["labels"]))
                    .collect();
                let labels = format!(
                    "alertname=\"{name}\", alertstate=\"firing\", severity=\"{}\"",
                    text(&alert["labels"]["severity"])
                );
                if fires { samples.iter().any(|sample| sample.contains(&labels)) } else { samples.is_empty() }
            };
            assert!(found.any(shows), "alerts.test.yaml: no case in which {name} {verb}");
        }
        let rule = ALERTS.split("- alert: ").filter(|rule| rule.starts_with(&format!("{name}\n")));
        assert!(rule.into_iter().all(|rule| comment.is_match(rule)), "{name}: no reason for its `for`");
    }
}

#[test]
fn the_readme_lists_what_is_exported() {
    let listed: BTreeMap<_, _> = README
        .lines()
        .filter(|line| line.starts_with("| `requestrocket_") || line.starts_with("| `process_"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let [name, kind, labels, meaning] = &cells[..] else { panic!("name, type, labels, meaning: {line}") };
            assert!(!meaning.is_empty(), "{line}");
            let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
            (name.clone(), Family { kind: kind.clone(), labels })
        })
        .collect();
    let exported = families().into_iter().map(|(name, mut family)| {
        family.labels.remove("le");
        (name, family)
    });
    assert_eq!(listed, exported.collect(), "on the left the README's, on the right what is exported");
}

#[test]
fn prometheus_scrapes_where_the_sample_configuration_listens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| -> Value {
        serde_yaml::from_str(&fs::read_to_string(root.join(file)).expect("a file")).expect("YAML")
    };
    let job = &read("conf/monitoring/prometheus.yaml")["scrape_configs"][0];
    assert_eq!(job["job_name"], "requestrocket-edge");
    assert_eq!(job["static_configs"][0]["targets"][0], read("conf/edge.yaml")["admin"]["address"]);
    let held = read("conf/edge.yaml")["held_responses_memory"].clone();
    assert_eq!(held, "512MiB", "EdgeHeldMemoryHigh takes 80 % of 512 MiB");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let said = promtool(&["check", "metrics"], &EXPORTED);
    assert!(said.is_empty(), "{said}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_files() {
    promtool(&["check", "config", "prometheus.yaml"], "");
    promtool(&["check", "rules", "alerts.yaml"], "");
    promtool(&["test", "rules", "alerts.test.yaml"], "");
}

#[test]
fn promtool_reads_each_query_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut queries = Vec::new();
    collect(&dashboard, "expr", &mut queries);
    let rules: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(at, query)| {
            let expr = query.replace("$__rate_interval", "1m").replace("$__range", "1h");
            serde_json::json!({ "record": format!("dashboard:query:{at}"), "expr": expr })
        })
        .collect();
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("rules.yaml");
    fs::write(&file, rules.to_string()).expect("a file");
    promtool(&["check", "rules", &file.to_string_lossy()], "");
}

/// A metric, as its `# TYPE` line and its series show it.
#[derive(PartialEq, Debug)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// The exported metrics by name.
fn families() -> BTreeMap<String, Family> {
    let label = Regex::new(r#"([a-z_]+)="(?:[^"\\]|\\.)*""#).expect("a regular expression");
    let mut families = BTreeMap::new();
    for line in EXPORTED.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            families.insert(name.to_owned(), Family { kind: kind.to_owned(), labels: BTreeSet::new() });
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            let family = family_of(&families, name).unwrap_or_else(|| panic!("no `# TYPE` before {line}")).to_owned();
            let labels = label.captures_iter(line).map(|found| found[1].to_owned());
            families.get_mut(&family).expect("found above").labels.extend(labels);
        }
    }
    families
}

/// The metric that a series of this name belongs to: that of a histogram has three names.
fn family_of<'a>(families: &'a BTreeMap<String, Family>, series: &str) -> Option<&'a str> {
    let of = |name: &str| families.get_key_value(name);
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| of(series.strip_suffix(suffix)?));
    match (of(series), histogram) {
        (Some((name, family)), _) if family.kind != "histogram" => Some(name),
        (_, Some((name, family))) if family.kind == "histogram" => Some(name),
        _ => None,
    }
}

/// The labels of a series, those that Prometheus adds included.
fn labels_of(families: &BTreeMap<String, Family>, series: &str) -> BTreeSet<String> {
    let family = family_of(families, series).map(|name| &families[name]);
    let mut labels: BTreeSet<_> = family.iter().flat_map(|family| family.labels.clone()).collect();
    if !series.ends_with("_bucket") {
        labels.remove("le");
    }
    labels.extend(SCRAPED.map(str::to_owned));
    labels
}

/// The metrics that a query names, each with what is in its braces.
fn metrics(query: &str) -> impl Iterator<Item = (String, String)> {
    static METRIC: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b((?:requestrocket|process)_[a-z_]+)(?:\{([^}]*)\})?").expect("a regular expression")
    });
    METRIC
        .captures_iter(query)
        .map(|found| (found[1].to_owned(), found.get(2).map_or_else(String::new, |labels| labels.as_str().to_owned())))
}

/// The labels that a query groups by, where it does.
fn grouping(query: &str) -> Option<BTreeSet<String>> {
    static BY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bby \(([^)]*)\)").expect("a regular expression"));
    let mut groups = BY.captures_iter(query).peekable();
    groups.peek()?;
    Some(groups.flat_map(|by| by[1].split(", ").map(str::to_owned).collect::<Vec<_>>()).collect())
}

/// What a query asks for in vain.
fn problems(query: &str) -> Vec<String> {
    static MATCHER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)""#).expect("a regular expression"));
    static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let word = Regex::new(r#""([a-z0-9_-]+)""#).expect("a regular expression");
        let words = |source: &'static str| word.captures_iter(source).map(|found| found.get(1).expect("it").as_str());
        SOURCES.into_iter().flat_map(|source| words(source).collect::<Vec<_>>()).collect()
    });
    let families = families();
    let (mut wrong, mut known) = (Vec::new(), BTreeSet::new());
    for (name, matchers) in metrics(query) {
        if family_of(&families, &name).is_none() {
            wrong.push(format!("{name} is not exported: {query}"));
            continue;
        }
        let labels = labels_of(&families, &name);
        for matcher in MATCHER.captures_iter(&matchers) {
            let (label, value) = (&matcher[1], &matcher[2]);
            if !labels.contains(label) {
                wrong.push(format!("{name} has no label {label}: {query}"));
            }
            for one in value.split('|').filter(|_| !SCRAPED.contains(&label)) {
                let one = Regex::new(&format!("^(?:{one})$")).expect("a regular expression");
                if !WORDS.iter().any(|word| one.is_match(word)) {
                    wrong.push(format!("{label} of {name} is never {one}: {query}"));
                }
            }
        }
        known.extend(labels);
    }
    for label in grouping(query).into_iter().flatten().filter(|label| !known.contains(label)) {
        wrong.push(format!("nothing has a label {label}: {query}"));
    }
    wrong
}

/// Every text of this key, wherever it is.
fn collect(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}

/// The dashboard's panels, rows included.
fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    dashboard["panels"].as_array().expect("a list").clone()
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(ALERTS).expect("YAML");
    let groups = rules["groups"].as_array().expect("a list");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("a list").clone()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Runs `promtool` in conf/monitoring; it must be content. What it said.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut process = Command::new("promtool")
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/monitoring"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`promtool`: {error}; `make test` installs it"));
    // It reads all before it says anything.
    process.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("`promtool` reads");
    let output = process.wait_with_output().expect("a child of ours");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {}: {}\n{said}", arguments.join(" "), output.status);
    said
}

/// Starts the real binary, gives it something to count, and takes what it exports.
fn scrape() -> String {
    let edge = Edge::start();
    let credential = "Authorization: Bearer my-token";
    for (path, header, status) in [
        ("/api/up/users", credential, "200"),
        ("/api/down/users", credential, "502"),
        ("/api/up/users", "Authorization: Bearer wrong", "403"),
    ] {
        let url = format!("http://{}{path}", edge.address);
        let arguments = ["-o", "/dev/null", "-w", "%{http_code}", "-H", header, &url];
        assert_eq!(curl(&arguments), status, "{path}\n{}", edge.printed());
    }
    // A request is counted a moment after its answer is out.
    let counted = ["refusal=\"none\"", "refusal=\"credential_denied\"", "error=\"connection_refused\""];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = curl(&["--fail", &format!("http://{}/metrics", edge.admin)]);
        if counted.iter().all(|label| metrics.contains(label)) {
            return metrics;
        }
        assert!(Instant::now() < deadline, "{counted:?} are not in\n{metrics}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]).args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("`curl`: {error}; `make test` installs it"));
    assert!(output.status.success(), "curl {}: {output:?}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("text")
}

/// The real binary's `serve`, with a target that answers and one that is not there. Ended when dropped.
struct Edge {
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
    output: PathBuf,
    _directory: TempDir,
}

impl Edge {
    fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let [address, tls, admin, down] = free_addresses();
        let up = target();
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
        write("edge.pem", &certificate.cert.pem());
        write("edge.key", &certificate.signing_key.serialize_pem());
        write(
            "edge.yaml",
            &format!(
                "
region: test
listeners:
  - {{ address: \"{address}\" }}
  - {{ address: \"{tls}\", tls: {{ certificates: [{{ chain: edge.pem, key: edge.key }}] }} }}
admin: {{ address: \"{admin}\" }}
allow_private_targets: true
access_log: {{ path: \"off\" }}
proxy_credentials:
  - id: app
    type: bearer
    secret: {{ sha256: fece50d2287f7245aea5819b75f95ee8bec295a14f8ef1e7a31f17f1dae9df44 }} # of `my-token`
targets:
  - {{ id: up, base_url: \"http://{up}\" }}
  - {{ id: down, base_url: \"http://{down}\" }}
proxies:
  - {{ id: up, target: up, proxy_credentials: [app] }}
  - {{ id: down, target: down, proxy_credentials: [app] }}
"
            ),
        );
        let output = directory.path().join("output");
        let file = File::create(&output).expect("a file for the output");
        let process = Command::new(env!("CARGO_BIN_EXE_requestrocket-edge"))
            .args(["serve", "-c", &directory.path().join("edge.yaml").to_string_lossy()])
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("cargo built the binary");
        let mut edge = Self { process, address, admin, output, _directory: directory };
        let deadline = Instant::now() + PATIENCE;
        for address in [address, tls, admin] {
            while let Err(error) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
                let ended = edge.process.try_wait().expect("a child of ours");
                let late = Instant::now() > deadline;
                assert!(!late && ended.is_none(), "{address}: {error}, exit: {ended:?}\n{}", edge.printed());
                thread::sleep(Duration::from_millis(20));
            }
        }
        edge
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A target that answers each connection's first request, until the test ends.
fn target() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.extend(byte);
            }
            // The edge may have gone.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
        }
    });
    address
}

/// Loopback ports that were free a moment ago, all different.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound"))
}
