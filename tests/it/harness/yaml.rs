//! The configuration of a test: what every test needs is written here, what matters is written by the test.

use std::net::SocketAddr;

/// The parts of a configuration folder. Fields are YAML in flow style, `timeout: 300ms, response: streamed`.
pub struct Yaml {
    pub base_url: String,
    /// Fields of the listener.
    pub listener: Vec<String>,
    /// Fields of the admin listener.
    pub admin: Vec<String>,
    /// Lines of `edge.yaml`.
    pub edge: Vec<String>,
    pub proxy: Vec<String>,
    pub client: Vec<String>,
    pub target: Vec<String>,
    pub target_credential: Vec<String>,
    pub account: Option<String>,
}

impl Yaml {
    pub fn edge(&self, address: SocketAddr, admin: SocketAddr) -> String {
        let listener = comma(&flow(&self.listener, ""));
        let fields = comma(&flow(&self.admin, ""));
        let mut yaml = format!(
            "region: test-1\nlisteners:\n  - {{ address: {address}{listener} }}\nadmin: {{ address: {admin}{fields} }}\ninclude: proxies.d\n"
        );
        for (key, default) in [("threads", "2"), ("allow_private_targets", "true"), ("access_log", "{ path: stdout }")]
        {
            if !self.edge.iter().any(|line| line.starts_with(key)) {
                yaml.push_str(&format!("{key}: {default}\n"));
            }
        }
        for line in &self.edge {
            yaml.push_str(line);
            yaml.push('\n');
        }
        yaml
    }

    pub fn fragment(&self) -> String {
        let mut client = flow(&self.client, "type: bearer, secret: { value: k1 }");
        let mut yaml = String::new();
        if let Some(account) = &self.account {
            yaml.push_str(&format!("accounts:\n  - {{ id: acme, {account} }}\n"));
            client.push_str(", account: acme");
        }
        yaml.push_str(&format!("proxy_credentials:\n  - {{ id: client, {client} }}\n"));
        let target = flow(&self.target, "");
        yaml.push_str(&format!("targets:\n  - {{ id: origin, base_url: \"{}\"{} }}\n", self.base_url, comma(&target)));
        let credential = flow(&self.target_credential, "type: bearer, secret: { value: t1 }");
        yaml.push_str(&format!("target_credentials:\n  - {{ id: origin-key, {credential} }}\n"));
        let proxy = flow(&self.proxy, "");
        yaml.push_str(&format!(
            "proxies:\n  - {{ id: demo, target: origin, target_credential: origin-key, proxy_credentials: [client]{} }}\n",
            comma(&proxy)
        ));
        yaml
    }
}

/// The fields in one line, after `default` unless they name a type of their own.
fn flow(fields: &[String], default: &str) -> String {
    let given = fields.join(", ");
    match (default.is_empty(), given.is_empty()) {
        (true, _) => given,
        (false, true) => default.to_owned(),
        (false, false) if given.contains("type:") => given,
        (false, false) => format!("{default}, {given}"),
    }
}

fn comma(fields: &str) -> String {
    if fields.is_empty() { String::new() } else { format!(", {fields}") }
}
