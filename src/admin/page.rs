//! The status page: the same facts as `/status`, for people. Whole in one answer: no script, no asset, nothing to fetch.

use std::fmt::{self, Display, Write as _};

use jiff::Timestamp;

use super::status::{CredentialStatus, ListenerStatus, ProxyStatus, Status, TargetStatus};
use crate::reload::OutcomeStatus;

const STYLE: &str = include_str!("page.css");
/// Seconds after which a browser looks again.
const REFRESH: u32 = 10;
/// Days before its end from which a certificate is shown as a worry.
const WORRY_DAYS: i64 = 14;

/// The page.
pub fn render(status: &Status) -> String {
    let mut page = String::with_capacity(16 * 1024);
    let region = Text(&status.region);
    let _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <meta http-equiv=refresh content={REFRESH}><title>{region} - requestrocket-edge</title><style>{STYLE}</style><main>\
         <header><h1>{region}</h1>{}<span class=quiet>requestrocket-edge {} - up {} - {}</span>\
         <span class=quiet><a href=/status>status</a> <a href=/metrics>metrics</a></span></header>",
        readiness(status.ready),
        status.version,
        Span(status.uptime_seconds),
        Moment(status.time),
    ); // writing to a String cannot fail, here and below
    tiles(&mut page, status);
    section(
        &mut page,
        "Listeners",
        "where clients connect",
        &["address", "speaks", "certificate", "expires"],
        |page| {
            status.listeners.iter().for_each(|one| listener(page, one));
            status.listeners.len()
        },
    );
    let note = format!("the busiest of {}", status.proxies_total);
    let columns = [
        "proxy",
        "target",
        "#requests",
        "#refused",
        "#failed",
        "#mean ms",
        "#of it target",
        "last failure",
        "left of a minute",
    ];
    section(&mut page, "Proxies", &note, &columns, |page| {
        status.proxies.iter().for_each(|one| proxy(page, one));
        status.proxies.len()
    });
    section(&mut page, "Targets", "of these proxies", &["target", "host", "addresses", "health"], |page| {
        status.targets.iter().for_each(|one| target(page, one));
        status.targets.len()
    });
    section(&mut page, "Configuration", "the last loads", &["time", "outcome", "notes"], |page| {
        status.configuration.iter().for_each(|one| outcome(page, one));
        status.configuration.len()
    });
    page.push_str("</main></html>\n");
    page
}

fn readiness(ready: bool) -> &'static str {
    if ready { "<span class='pill good'>ready</span>" } else { "<span class='pill warn'>leaving</span>" }
}

fn tiles(page: &mut String, status: &Status) {
    page.push_str("<div class=tiles>");
    let held = format!("held answers, of {}", Bytes(status.held_bytes_limit));
    let tiles: [(&str, &dyn Display); 5] = [
        ("requests in flight", &status.requests_in_flight),
        ("clients connected", &status.client_connections),
        (&held, &Bytes(status.held_bytes)),
        ("proxies", &status.proxies_total),
        ("generation", &status.generation),
    ];
    for (name, value) in tiles {
        let _ = write!(page, "<div class=tile><b>{value}</b><span class=quiet>{name}</span></div>");
    }
    page.push_str("</div>");
}

/// A table under a title. A column that begins with `#` holds numbers. `rows` tells how many it wrote.
fn section(page: &mut String, title: &str, note: &str, columns: &[&str], rows: impl FnOnce(&mut String) -> usize) {
    let _ = write!(page, "<h2>{title} <span class=quiet>{}</span></h2><div class=wide><table><thead><tr>", Text(note));
    for column in columns {
        let _ = match column.strip_prefix('#') {
            Some(number) => write!(page, "<th class=n>{number}"),
            None => write!(page, "<th>{column}"),
        };
    }
    page.push_str("</thead><tbody>");
    if rows(page) == 0 {
        let _ = write!(page, "<tr><td class=none colspan={}>none", columns.len());
    }
    page.push_str("</tbody></table></div>");
}

fn listener(page: &mut String, listener: &ListenerStatus) {
    let mut speaks = vec![if listener.tls { "TLS" } else { "plain text" }, "HTTP/1.1"];
    speaks.extend(listener.http2.then_some("HTTP/2"));
    speaks.extend(listener.proxy_protocol.then_some("PROXY protocol"));
    speaks.extend(listener.client_certificates.then_some("client certificates"));
    let _ = write!(page, "<tr><td><code>{}</code><td>{}<td>", Text(&listener.address), speaks.join(", "));
    for certificate in &listener.certificates {
        let _ = write!(page, "<div><code>{}</code></div>", Text(&certificate.file));
    }
    page.push_str("<td>");
    for certificate in &listener.certificates {
        let class = match certificate.days_left {
            days if days < 0 => "bad",
            days if days < WORRY_DAYS => "warn",
            _ => "good",
        };
        let expires = certificate.expires.map(Moment);
        let expires = expires.map_or_else(String::new, |expires| expires.to_string());
        let _ =
            write!(page, "<div class={class}>{} days <span class=quiet>{expires}</span></div>", certificate.days_left);
    }
}

fn proxy(page: &mut String, proxy: &ProxyStatus) {
    let inactive = if proxy.active { "" } else { " <span class=warn>inactive</span>" };
    let failed = if proxy.failed > 0 { "bad" } else { "" };
    let _ = write!(
        page,
        "<tr><td><code>{}</code>{inactive}<td><code>{}</code><td class=n>{}<td class=n>{}<td class='n {failed}'>{}<td class=n>{:.1}<td class=n>{:.1}<td>",
        Text(&proxy.id),
        Text(&proxy.target),
        proxy.requests,
        proxy.refused,
        proxy.failed,
        proxy.mean_ms,
        proxy.mean_target_ms,
    );
    if let Some(failure) = &proxy.last_failure {
        let _ = write!(page, "{}<small>{}</small>", failure.error, Moment(failure.time));
    }
    page.push_str("<td>");
    proxy.credentials.iter().for_each(|one| headroom(page, one));
}

fn headroom(page: &mut String, credential: &CredentialStatus) {
    let (left, limit) = (credential.minute_left, credential.per_minute);
    let _ = write!(
        page,
        "<div><meter min=0 max={limit} low={} optimum={limit} value={left}>{left}</meter> {left} of {limit} <code>{}</code>",
        limit / 5,
        Text(&credential.id),
    );
    if let (Some(left), Some(limit)) = (credential.day_left, credential.per_day) {
        let _ = write!(page, "<small>{left} of {limit} today</small>");
    }
    page.push_str("</div>");
}

fn target(page: &mut String, target: &TargetStatus) {
    let class = match target.health {
        "ok" => "good",
        "unused" => "quiet",
        "stale" => "warn",
        _ => "bad",
    };
    let scheme = if target.tls { "https" } else { "http" };
    let addresses: Vec<String> = target.addresses.iter().map(ToString::to_string).collect();
    let _ = write!(
        page,
        "<tr><td><code>{}</code><td><code>{scheme}://{}</code><td class=free><code>{}</code><td class={class}>{}",
        Text(&target.id),
        Text(&target.host),
        addresses.join(", "),
        target.health,
    );
}

fn outcome(page: &mut String, outcome: &OutcomeStatus) {
    let word = if outcome.taken { "<td class=good>taken" } else { "<td class=bad>not taken" };
    let _ = write!(page, "<tr><td>{}{word}<td class=free>", Moment(outcome.time));
    if outcome.notes.is_empty() {
        return;
    }
    page.push_str("<ul>");
    for note in &outcome.notes {
        let _ = write!(page, "<li>{}", Text(note));
    }
    page.push_str("</ul>");
}

/// Text from a configuration, which may hold anything.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A moment, to the second.
struct Moment(Timestamp);

impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// A span in its two largest units.
struct Span(u64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours, minutes, seconds) = (self.0 / 86_400, self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {seconds} s"),
            (0, ..) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

/// Bytes in the largest unit that leaves a whole part.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 => write!(f, "{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            bytes if bytes >= 1 << 10 => write!(f, "{:.1} KiB", bytes as f64 / f64::from(1 << 10)),
            bytes => write!(f, "{bytes} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_holds_stays_text() {
        assert_eq!(Text("<script>'\"&").to_string(), "&lt;script&gt;&#39;&quot;&amp;");
    }

    #[test]
    fn spans_and_sizes_read_like_speech() {
        for (seconds, text) in [(5, "5 s"), (65, "1 min 5 s"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(Span(seconds).to_string(), text);
        }
        assert_eq!(Bytes(512 << 20).to_string(), "512.0 MiB");
    }
}
