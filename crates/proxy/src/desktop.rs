//! What the desktop of a person says: GNOME, KDE, or the variables of the person's session.
//!
//! The daemon has no session, and is often another user. So a command reads the settings as the person
//! ([`Found::by_person`]) and tells them to the daemon.
//!
//! Automatic discovery (WPAD) is passed over and told: it would ask the network who reads along.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bypass::Bypass;
use crate::settings::Written;

/// The longest settings that are read, in octets.
const SETTINGS_BYTES_MAX: usize = 256 * 1024;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where: `GNOME`, `KDE`, `environment`; none when nobody says anything of proxies.
    pub by: Option<&'static str>,
    /// What it says.
    pub written: Written,
    /// What was passed over, and why.
    pub notices: Vec<String>,
}

impl Found {
    /// Reads the settings of the person who runs this process. The desktop that runs goes first, then the
    /// other, then the environment.
    #[must_use]
    pub fn by_person() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let gnome = || Self::of_gnome(&gsettings().unwrap_or_default());
        let kde = || Self::of_kde(&kioslaverc().unwrap_or_default(), variable);
        let runs = variable("XDG_CURRENT_DESKTOP").unwrap_or_default();
        let desktops = match runs.split(':').any(|name| name == "KDE") {
            true => [kde(), gnome()],
            false => [gnome(), kde()],
        };
        let mut notices = Vec::new();
        for found in desktops.into_iter().chain([Self::of_environment(variable)]) {
            notices.extend(found.notices.iter().cloned());
            if found.by.is_some() {
                return Self { notices, ..found };
            }
        }
        Self {
            notices,
            ..Self::default()
        }
    }

    /// Reads what `gsettings list-recursively org.gnome.system.proxy` prints.
    #[must_use]
    pub fn of_gnome(listing: &str) -> Self {
        let value = |schema: &str, key: &str| {
            let wanted = format!("org.gnome.system.proxy{schema} {key} ");
            let line = listing.lines().find_map(|line| line.strip_prefix(&wanted));
            line.unwrap_or_default().trim()
        };
        let text = |schema: &str, key: &str| strings(value(schema, key)).into_iter().next();
        let text = |schema: &str, key: &str| text(schema, key).filter(|text| !text.is_empty());
        let mut found = Self::default();
        match text("", "mode").as_deref() {
            Some("auto") => match text("", "autoconfig-url") {
                Some(place) => found.written.pac = Some(place),
                None => found.no_discovery("GNOME"),
            },
            Some("manual") => {
                let server = |schema: &str, scheme: &str, user: Option<String>| {
                    let port = value(schema, "port");
                    let host = text(schema, "host").filter(|_| port != "0")?;
                    let user = user.unwrap_or_default();
                    Some(format!("{scheme}://{user}{}:{port}", bracketed(&host)).into())
                };
                let is_known = value(".http", "use-authentication") == "true";
                let user = text(".http", "authentication-user").filter(|_| is_known);
                let user = user.map(|user| {
                    let password = text(".http", "authentication-password");
                    format!(
                        "{}:{}@",
                        escape(&user),
                        escape(&password.unwrap_or_default())
                    )
                });
                // GNOME asks for a user in one place: it counts where the proxy is the same.
                let place = |schema| (text(schema, "host"), value(schema, "port"));
                let too = user.clone().filter(|_| place(".https") == place(".http"));
                found.written.http = server(".http", "http", user);
                found.written.https = server(".https", "http", too);
                found.written.proxy = server(".socks", "socks5", None);
            }
            _ => {}
        }
        found.exceptions(&strings(value("", "ignore-hosts")));
        found.named("GNOME")
    }

    /// Reads `kioslaverc`; `variable` tells the environment, which the file may name.
    #[must_use]
    pub fn of_kde(file: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        let section = file.split("[Proxy Settings]").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        let value = |key: &str| {
            let mut lines = section.lines().filter_map(|line| line.split_once('='));
            // A key may have marks after it, as `key[$e]`.
            let line = lines.find(|(name, _)| name.split('[').next() == Some(key));
            line.map(|(_, value)| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let mut found = Self::default();
        let kind = value("ProxyType").unwrap_or_default();
        match kind.as_str() {
            "1" | "4" => {
                let named = |key: &str| {
                    let text = value(key)?;
                    let text = if kind == "4" { variable(&text)? } else { text };
                    // Host and port are separated by a blank.
                    let text = text.trim_end_matches('/').replacen(' ', ":", 1);
                    Some(text.into())
                };
                found.written.http = named("httpProxy");
                found.written.https = named("httpsProxy");
                found.written.proxy = named("socksProxy");
                let list = value("NoProxyFor");
                let list = if kind == "4" {
                    list.and_then(|name| variable(&name))
                } else {
                    list
                };
                let list = list.unwrap_or_default();
                let list: Vec<String> = list.split([',', ' ']).map(str::to_owned).collect();
                found.exceptions(&list);
                found.written.reversed = value("ReversedException").as_deref() == Some("true");
            }
            "2" => found.written.pac = value("Proxy Config Script"),
            "3" => found.no_discovery("KDE"),
            _ => {}
        }
        found.named("KDE")
    }

    /// Reads variables, by the rules of [`crate::environment`].
    #[must_use]
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let mut found = Self::default();
        let with_port = |text: String| match crate::Route::parse_with_port(&text) {
            // The port that curl takes is said, since the daemon wants one.
            Ok((route, false)) => {
                let port = route.server().map_or(0, |server| server.port);
                format!("{}:{port}", text.trim_end_matches('/')).into()
            }
            _ => text.into(),
        };
        found.written.http = first(&["http_proxy"]).map(with_port);
        found.written.https = first(&["https_proxy", "HTTPS_PROXY"]).map(with_port);
        found.written.proxy = first(&["all_proxy", "ALL_PROXY"]).map(with_port);
        let list = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        let list: Vec<String> = list.split([',', ' ']).map(str::to_owned).collect();
        found.exceptions(&list);
        found.named("environment")
    }

    /// Takes those entries that can be used.
    fn exceptions(&mut self, entries: &[String]) {
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            match Bypass::new([entry.as_str()]) {
                Ok(_) => self.written.no_proxy.push(entry.clone()),
                Err(error) => self.notices.push(error.to_string()),
            }
        }
    }

    fn no_discovery(&mut self, desktop: &str) {
        self.notices.push(format!(
            "{desktop} is set to find a proxy by itself (WPAD), which is passed over: name the PAC \
             file there, or as `proxy_pac` in the configuration"
        ));
    }

    fn named(mut self, by: &'static str) -> Self {
        let Written {
            proxy,
            http,
            https,
            pac,
            ..
        } = &self.written;
        if proxy.is_some() || http.is_some() || https.is_some() || pac.is_some() {
            self.by = Some(by);
        } else {
            self.written = Written::default();
        }
        self
    }
}

/// Asks GNOME; none when there is none.
fn gsettings() -> Option<String> {
    let mut command = Command::new("gsettings");
    command.args(["list-recursively", "org.gnome.system.proxy"]);
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let output = child.stdout.take()?;
    let mut octets = Vec::new();
    let read = output
        .take(SETTINGS_BYTES_MAX as u64)
        .read_to_end(&mut octets);
    // It has closed its output, or says too much.
    let _ = child.kill();
    let _ = child.wait();
    read.ok()?;
    String::from_utf8(octets).ok()
}

/// Reads the file of KDE; none when there is none.
fn kioslaverc() -> Option<String> {
    let directory = match std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".config"),
    };
    let file = fs::File::open(directory.join("kioslaverc")).ok()?;
    let mut text = String::new();
    file.take(SETTINGS_BYTES_MAX as u64)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// Reads the texts in quotes of a GVariant (GLib, "GVariant Text Format", "Strings").
fn strings(value: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = value.chars();
    while let Some(quote) = rest.by_ref().find(|c| matches!(c, '\'' | '"')) {
        let mut text = String::new();
        while let Some(c) = rest.next().filter(|c| *c != quote) {
            match c {
                '\\' => text.extend(rest.next()),
                c => text.push(c),
            }
        }
        texts.push(text);
    }
    texts
}

fn bracketed(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// Writes `%` escapes for all but letters and digits (RFC 3986, section 2.1).
fn escape(text: &str) -> String {
    let octet = |octet: u8| match octet.is_ascii_alphanumeric() {
        true => char::from(octet).to_string(),
        false => format!("%{octet:02X}"),
    };
    text.bytes().map(octet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: &Found) -> Vec<&str> {
        let Written {
            proxy, http, https, ..
        } = &found.written;
        let texts = [http, https, proxy].into_iter().flatten();
        texts.map(crate::Secret::text).collect()
    }

    const GNOME: &str = "org.gnome.system.proxy autoconfig-url 'http://wpad/p.pac'
org.gnome.system.proxy ignore-hosts ['localhost', '127.0.0.0/8', '::1', \"*.it's\", '*.corp']
org.gnome.system.proxy mode 'manual'
org.gnome.system.proxy use-same-proxy true
org.gnome.system.proxy.ftp host ''
org.gnome.system.proxy.ftp port 0
org.gnome.system.proxy.http authentication-password 'p@ss'
org.gnome.system.proxy.http authentication-user 'al\\'ice'
org.gnome.system.proxy.http enabled false
org.gnome.system.proxy.http host 'proxy.corp'
org.gnome.system.proxy.http port 8080
org.gnome.system.proxy.http use-authentication true
org.gnome.system.proxy.https host '2001:db8::1'
org.gnome.system.proxy.https port 8443
org.gnome.system.proxy.socks host ''
org.gnome.system.proxy.socks port 0
";

    #[test]
    fn gnome_names_proxies_and_exceptions() {
        let found = Found::of_gnome(GNOME);
        assert_eq!(found.by, Some("GNOME"));
        assert_eq!(
            shown(&found),
            [
                "http://al%27ice:p%40ss@proxy.corp:8080",
                "http://[2001:db8::1]:8443"
            ]
        );
        let exceptions = ["localhost", "127.0.0.0/8", "::1", "*.corp"];
        assert_eq!(found.written.no_proxy, exceptions);
        assert!(found.notices[0].contains("*.it's"));
        assert!(found.written.settings().unwrap().is_some());
    }

    #[test]
    fn the_user_of_gnome_counts_for_the_same_proxy_alone() {
        let same = GNOME
            .replace("2001:db8::1", "proxy.corp")
            .replace("8443", "8080");
        let found = Found::of_gnome(&same);
        assert_eq!(shown(&found)[0], shown(&found)[1]);
    }

    #[test]
    fn gnome_names_a_pac_file_or_nothing() {
        let auto = GNOME.replace("'manual'", "'auto'");
        let found = Found::of_gnome(&auto);
        assert_eq!(found.written.pac.as_deref(), Some("http://wpad/p.pac"));
        assert!(shown(&found).is_empty());
        let found = Found::of_gnome(&auto.replace("http://wpad/p.pac", ""));
        assert!(found.by.is_none() && found.notices.iter().any(|text| text.contains("WPAD")));
        assert!(
            Found::of_gnome(&GNOME.replace("'manual'", "'none'"))
                .by
                .is_none()
        );
        assert_eq!(Found::of_gnome(""), Found::default());
    }

    #[test]
    fn kde_names_proxies_a_pac_file_or_variables() {
        let variable = |name: &str| (name == "MY_PROXY").then(|| "http://v:1".to_owned());
        let file = "[Other]\nProxyType=2\n[$Version]\n[Proxy Settings]\nNoProxyFor=corp,10.0.0.0/8\n\
                    ProxyType=1\nReversedException=true\nhttpProxy[$e]=http://h 3128\n\
                    httpsProxy=http://s:1/\nsocksProxy=socks://k 1080\n[After]\nhttpProxy=x\n";
        let found = Found::of_kde(file, variable);
        assert_eq!(
            shown(&found),
            ["http://h:3128", "http://s:1", "socks://k:1080"]
        );
        assert!(found.written.reversed && found.written.no_proxy == ["corp", "10.0.0.0/8"]);
        assert!(found.written.settings().unwrap().is_some());
        let pac = "[Proxy Settings]\nProxyType=2\nProxy Config Script=file:///etc/p.pac\n";
        let found = Found::of_kde(pac, variable);
        assert_eq!(found.written.pac.as_deref(), Some("file:///etc/p.pac"));
        let named = "[Proxy Settings]\nProxyType=4\nhttpProxy=MY_PROXY\nhttpsProxy=NONE\n";
        assert_eq!(shown(&Found::of_kde(named, variable)), ["http://v:1"]);
        let off = "[Proxy Settings]\nProxyType=0\nhttpProxy=http://h 1\n";
        assert!(Found::of_kde(off, variable).by.is_none());
    }

    #[test]
    fn the_environment_of_the_person_is_as_curl_has_it() {
        let found = Found::of_environment(|name| match name {
            "https_proxy" => Some("proxy".to_owned()),
            "no_proxy" => Some("a.com, b.com".to_owned()),
            _ => None,
        });
        assert_eq!(shown(&found), ["proxy:1080"]);
        assert_eq!(found.written.no_proxy, ["a.com", "b.com"]);
        assert!(found.written.settings().unwrap().is_some());
    }
}
