//! Whole configurations, loaded from files.

mod entries;
mod samples;
mod schema;
mod show;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::model::{AccessLog, Billing, Effect, Expect, Proof, RateLimit, ResponseMode, TargetHost, TargetHttp};
use super::*;

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"; // of `test`

/// A folder with an `edge.yaml` that takes in `proxies.d`.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        fs::create_dir(folder.path("proxies.d")).unwrap();
        folder.write("edge.yaml", "region: r1\nlisteners: [{ address: '127.0.0.1:8080' }]\ninclude: proxies.d\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(self, name: &str, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn loader(&self) -> Loader {
        Loader::new(&self.path("edge.yaml"))
    }

    fn load(&self) -> Loaded {
        self.loader().load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn problems(&self) -> String {
        self.loader().load().map(|_| ()).unwrap_err().to_string()
    }
}

/// `count` proxies, each with a target and a credential of its own and a rule that is the same for all.
fn fragment(name: &str, count: usize) -> String {
    let list = |line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let credentials = list(&|n| {
        let digest = crate::secret::Digest::of(format!("{name}-{n}").as_bytes()).to_hex();
        format!("  - {{ id: {name}-c{n}, type: bearer, secret: {{ sha256: \"{digest}\" }} }}\n")
    });
    let targets = list(&|n| format!("  - {{ id: {name}-t{n}, base_url: \"https://t{n}.{name}.example.com/v1\" }}\n"));
    let proxies = list(&|n| {
        let rule = "{ id: no-deletes, effect: deny, methods: [DELETE], path: \"^/users\" }";
        format!("  - {{ id: {name}-p{n}, target: {name}-t{n}, proxy_credentials: [{name}-c{n}], rules: [{rule}] }}\n")
    });
    format!("proxy_credentials:\n{credentials}targets:\n{targets}proxies:\n{proxies}")
}

#[test]
fn what_is_not_written_has_its_default() {
    let folder = Folder::new().write("proxies.d/a.yaml", &fragment("a", 1));
    let Loaded { config, warnings, .. } = folder.load();
    assert!(warnings.is_empty());
    let edge = &config.edge;
    assert!(edge.threads >= 1 && edge.admin.is_none() && !edge.allow_private_targets);
    assert_eq!(edge.held_responses_memory, 512 << 20);
    assert_eq!((edge.limits.max_header_bytes, edge.limits.max_headers), (64 << 10, 128));
    assert_eq!((edge.pool.idle_timeout, edge.dns.max_stale), (Duration::from_secs(50), Duration::from_secs(300)));
    assert!(edge.access_log == AccessLog::Stdout);
    let proxy = &config.proxies[0];
    assert_eq!((&*proxy.id, proxy.active, proxy.response), ("a-p0", true, ResponseMode::Held));
    assert_eq!((proxy.timeout, proxy.connect_timeout), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!((proxy.max_response_body, proxy.max_request_body), (6_291_456, 10_485_760));
    assert!(proxy.target_credential.injection.headers.is_empty());
    assert_eq!(proxy.proxy_credentials[0].billing, Billing::Active);
    assert_eq!(proxy.proxy_credentials[0].rate_limit, RateLimit { per_minute: 100, per_day: None });
    assert_eq!((proxy.target.port, proxy.target.http, &*proxy.target.base_path), (443, TargetHttp::Auto, "/v1"));
    assert!(matches!(&proxy.target.host, TargetHost::Name(name) if &**name == "t0.a.example.com"));
    let rule = &proxy.scope.rules[0];
    assert_eq!((proxy.scope.default_effect, rule.effect, rule.methods.len()), (Effect::Allow, Effect::Deny, 1));
    assert!(rule.path.as_ref().is_some_and(|path| path.is_match(b"/users/1") && !path.is_match(b"/v1/users")));
}

#[test]
fn an_off_access_log_is_off_however_yaml_reads_it() {
    for (written, read) in [("off", AccessLog::Off), ("false", AccessLog::Off), ("stdout", AccessLog::Stdout)] {
        let edge =
            format!("region: r1\nlisteners: [{{ address: '127.0.0.1:1' }}]\naccess_log: {{ path: {written} }}\n");
        assert!(Folder::new().write("edge.yaml", &edge).load().config.edge.access_log == read, "{written}");
    }
}

#[test]
fn the_closest_rate_limit_holds() {
    let credential =
        |id: &str, more: &str| format!("  - {{ id: {id}, type: api_key, secret: {{ value: k-{id} }}, {more} }}\n");
    let own = "rate_limit: { requests_per_minute: 7 }";
    let daily = "rate_limit: { requests_per_day: 9 }";
    let cases = [
        ("default", "active: true".to_owned(), RateLimit { per_minute: 100, per_day: None }),
        ("team", "account: team".to_owned(), RateLimit { per_minute: 1_000, per_day: None }),
        ("business", "account: business".to_owned(), RateLimit { per_minute: 5_000, per_day: Some(1_000_000) }),
        ("own", own.to_owned(), RateLimit { per_minute: 7, per_day: None }),
        ("own-of-business", format!("account: business, {own}"), RateLimit { per_minute: 7, per_day: Some(1_000_000) }),
        ("daily-of-team", format!("account: team, {daily}"), RateLimit { per_minute: 1_000, per_day: Some(9) }),
    ];
    let credentials: String = cases.iter().map(|(id, more, _)| credential(id, more)).collect();
    let ids: Vec<&str> = cases.iter().map(|(id, ..)| *id).collect();
    let business =
        "{ id: business, plan: business, rate_limit: { requests_per_minute: 5000, requests_per_day: 1000000 } }";
    let text = format!(
        "accounts: [{{ id: team, plan: team, billing: low_budget }}, {business}]\nproxy_credentials:\n{credentials}\
         targets: [{{ id: t, base_url: 'http://127.0.0.1:1' }}]\n\
         proxies: [{{ id: p, target: t, proxy_credentials: [{}] }}]\n",
        ids.join(", ")
    );
    let config = Folder::new().write("proxies.d/a.yaml", &text).load().config;
    for (credential, (id, _, limit)) in config.proxies[0].proxy_credentials.iter().zip(&cases) {
        assert_eq!((&*credential.id, credential.rate_limit), (*id, *limit));
    }
    assert_eq!(config.proxies[0].proxy_credentials[1].billing, Billing::LowBudget);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let problems = Folder::new()
        .write("edge.yaml", "region: r 1\nlisteners: []\ninclude: proxies.d\ndefaults: { timeout: 5x }\n")
        .write("proxies.d/a.yaml", "targets: [\n")
        .write("proxies.d/b.yaml", "proxies: [{ id: a/b }]\naccounts: [{ id: x, plan: gold }]\n")
        .write("proxies.d/c.yaml", "accounts: [{ id: x, plan: team }]\n")
        .problems();
    let starts: Vec<_> =
        problems.lines().map(|line| line.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(
        starts,
        [
            "edge.yaml: defaults.timeout",
            "edge.yaml: region",
            "edge.yaml: listeners",
            "proxies.d/a.yaml: line 2, column 1",
            "proxies.d/b.yaml: accounts[0].plan",
            "proxies.d/b.yaml: proxies[0].id",
            "proxies.d/b.yaml: proxies[0]",
            "proxies.d/b.yaml: proxies[0]",
            "proxies.d/c.yaml: accounts[0].id",
        ],
        "{problems}"
    );
}

#[test]
fn what_may_stand_in_an_unreadable_file_is_not_missed() {
    let folder =
        Folder::new().write("proxies.d/a.yaml", &fragment("a", 1).replace("target: a-t0", "target: elsewhere"));
    assert!(folder.problems().contains("`elsewhere` is not a target"));
    let problems = folder.write("proxies.d/b.yaml", "targets: [\n").problems();
    assert!(!problems.contains("elsewhere") && problems.contains("proxies.d/b.yaml: line 2"), "{problems}");
    let nowhere = load(Path::new("no/such/edge.yaml")).map(|_| ()).unwrap_err();
    assert_eq!(
        nowhere.to_string(),
        "edge.yaml: cannot be read: there is no such file; write it, or name another with `-c`"
    );
}

#[test]
fn no_secret_is_shown() {
    const CANARY: &str = "canary-7f3a";
    let places = [
        "secret: C",
        "secret: [C]",
        "secret: {C}",
        "secret: {C: C}",
        "secret: {value: [C]}",
        "secret: {value: ' C'}",
        "secret: {sha256: C}",
        "secret: {sha256: {C: C}}",
        "secret: {env: C}",
        "secret: {file: file}",
        "secret: C, jwt: C",
        "secret: {value: C, sha256: C}",
        "jwt: [C]",
        "jwt: {secret: C, algorithms: [RS256]}",
        "jwt: {secret: {value: C}}",
        "jwt: {secret: {file: file}, algorithms: [RS256]}",
        "jwt: {algorithms: [RS256], public_key_file: key.pem}",
        "jwt: {algorithms: [RS256], jwks_file: jwks.json}",
        "headers: C",
        "headers: [C]",
        "headers: {X-Key: C}",
        "headers: {X-Key: {value: ' C'}}",
        "headers: {X-Key: {C}}",
        "headers: {X-Key: {file: file}}",
        "base_url: 'https://C@h'",
        "base_url: 'https://u:C@h/'",
        "base_url: 'https://h/?C'",
        "base_url: 'C@'",
    ];
    for place in places {
        let place = place.replace('C', CANARY);
        for kind in ["bearer", "api_key", "basic", "jwt", "jwt_verify", "custom", "none", "oauth2", "x"] {
            let text = ["proxy_credentials", "target_credentials", "targets"]
                .map(|list| format!("{list}: [{{ id: a, type: {kind}, username: u, {place} }}]\n"))
                .concat();
            let folder = Folder::new()
                .write("edge.yaml", "include: proxies.d\n")
                .write("proxies.d/a.yaml", &text)
                .write("proxies.d/file", &format!("{CANARY}\nmore"))
                .write("proxies.d/key.pem", &format!("-----BEGIN PUBLIC KEY-----\n{CANARY}\n"))
                .write("proxies.d/jwks.json", &format!("{{\"keys\": [{{\"kty\": \"oct\", \"k\": \"{CANARY}\"}}]}}"));
            let problems = folder.loader().load().map(|_| ()).unwrap_err();
            assert!(!problems.to_string().contains(CANARY), "{kind}, {place}:\n{problems}");
            assert!(!format!("{problems:?}").contains(CANARY), "{kind}, {place}");
        }
    }
}

/// A deny rule of `^/admin/.+$` means everything under `/admin/`, and a query value is whatever stands between `=` and `&`.
#[test]
fn shutdown_has_bounds_and_defaults() {
    let edge = |text: &str| {
        let text = format!("region: r1\nlisteners: [{{ address: '127.0.0.1:1' }}]\n{text}");
        Folder::new().write("edge.yaml", &text).load().config.edge.shutdown
    };
    let shutdown = |lead, drain| model::Shutdown { lead: Duration::from_secs(lead), drain: Duration::from_secs(drain) };
    assert_eq!(edge(""), shutdown(0, 75));
    assert_eq!(edge("shutdown: { lead: 10m, drain: 1s }"), shutdown(600, 1));
    assert_eq!(edge("shutdown: { lead: 0s, drain: 10m }"), shutdown(0, 600));
}

#[test]
fn a_reload_parses_only_what_changed() {
    let folder = Folder::new()
        .write("proxies.d/a.yaml", &fragment("a", 3))
        .write("proxies.d/b.yaml", &fragment("b", 3))
        .write("proxies.d/secret", "one\n")
        .write("proxies.d/c.yaml", "target_credentials: [{ id: k, type: bearer, secret: { file: secret } }]\n");
    let mut loader = folder.loader();
    let counts = |loader: &mut Loader| {
        let loaded = loader.load().unwrap_or_else(|problems| panic!("{problems}"));
        (loaded.fragments_parsed, loaded.fragments_kept, loaded.config.proxies.len())
    };
    assert_eq!(counts(&mut loader), (3, 0, 6));
    assert_eq!(counts(&mut loader), (0, 3, 6));
    let folder = folder.write("proxies.d/b.yaml", &fragment("b", 4));
    assert_eq!(counts(&mut loader), (1, 2, 7));
    let folder = folder.write("proxies.d/secret", "two\n");
    assert_eq!(counts(&mut loader), (1, 2, 7));
    let folder = folder.write("proxies.d/a.yaml", "proxies: [{}]\n");
    assert!(loader.load().is_err());
    let folder = folder.write("proxies.d/a.yaml", &fragment("a", 3));
    assert_eq!(counts(&mut loader), (1, 2, 7));
    fs::remove_file(folder.path("proxies.d/b.yaml")).unwrap();
    assert_eq!(counts(&mut loader), (0, 2, 3));
}

#[test]
fn credentials_of_the_service_go_before_files_beside_the_fragment() {
    let fragment = "target_credentials: [{ id: k, type: bearer, secret: { file: secret } }]
proxy_credentials: [{ id: c, type: bearer, secret: { value: x } }]
targets: [{ id: t, base_url: 'http://h' }]
proxies: [{ id: p, target: t, target_credential: k, proxy_credentials: [c] }]\n";
    let folder = Folder::new().write("proxies.d/a.yaml", fragment).write("proxies.d/secret", "beside");
    let service = TempDir::new().unwrap();
    let mut loader = folder.loader().with_credentials(service.path());
    let mut sent = || {
        let loaded = loader.load().unwrap_or_else(|problems| panic!("{problems}"));
        String::from_utf8(loaded.config.proxies[0].target_credential.injection.headers[0].1.as_bytes().to_vec())
            .unwrap()
    };
    assert_eq!(sent(), "Bearer beside");
    fs::write(service.path().join("secret"), "of the service").unwrap();
    assert_eq!(sent(), "Bearer of the service");
}

#[test]
fn all_files_that_matter_are_watched() {
    let folder = Folder::new()
        .write("proxies.d/a.yaml", "target_credentials: [{ id: k, type: bearer, secret: { file: secret } }]\n")
        .write("proxies.d/secret", "one");
    let names = ["edge.yaml", "proxies.d", "proxies.d/a.yaml", "proxies.d/secret"];
    assert_eq!(folder.load().files, names.map(|name| folder.path(name)));
    // Also where the load fails: the file that is missing may come.
    fs::remove_file(folder.path("proxies.d/secret")).unwrap();
    let mut loader = folder.loader();
    assert!(loader.load().is_err());
    assert!(loader.files().eq(names.map(|name| folder.path(name)).iter().map(PathBuf::as_path)));
}

#[test]
fn many_fragments_are_one_configuration() {
    let folder = (0..50).fold(Folder::new(), |folder, index| {
        folder.write(&format!("proxies.d/{index:03}.yaml"), &fragment(&format!("f{index}"), 10))
    });
    let loaded = folder.load();
    assert_eq!((loaded.fragments_parsed, loaded.config.proxies.len()), (50, 500));
    let ids: Vec<&str> = loaded.config.proxies.iter().map(|proxy| &*proxy.id).collect();
    assert_eq!((ids[0], ids[10], ids[499]), ("f0-p0", "f1-p0", "f49-p9"));
}

#[test]
fn a_key_cannot_break_the_line_that_names_it() {
    let folder = Folder::new().write("proxies.d/a.yaml", "\"tar\\ngets\\e[2J\": []\n");
    let problems = folder.problems();
    assert!(problems.starts_with(r"proxies.d/a.yaml: tar\ngets\u{1b}[2J: no such key"), "{problems}");
}
