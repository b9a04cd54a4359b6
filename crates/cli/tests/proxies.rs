//! Which proxy a node's connections take: told by the configuration, a company, a desktop, a PAC file.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod desktop;
mod node;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use desktop::Person;
use node::{Node, until};

/// What GNOME says.
const GNOME: &str = "\
org.gnome.system.proxy ignore-hosts ['localhost', '*.corp']
org.gnome.system.proxy mode 'manual'
org.gnome.system.proxy.http authentication-password 'secret'
org.gnome.system.proxy.http authentication-user 'alice'
org.gnome.system.proxy.http host 'gnome.example'
org.gnome.system.proxy.http port 3128
org.gnome.system.proxy.http use-authentication true
org.gnome.system.proxy.https host 'gnome.example'
org.gnome.system.proxy.https port 3129
";

/// What KDE says.
const KIOSLAVERC: &str = "[Proxy Settings]\nProxyType=1\nhttpsProxy=http://kde.example 8080\n";

/// What the node says of a source.
fn says(state: &Value, source: &str) -> Value {
    let sources = state["sources"].as_array().unwrap();
    let found = sources.iter().find(|found| found["source"] == source);
    found.map_or(Value::Null, |found| found["says"].clone())
}

fn answer(node: &Node, url: &str) -> Value {
    node.ask(&["proxy", url])["choice"].clone()
}

#[test]
fn a_desktop_is_told_to_the_daemon_and_shown_without_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Node::start(&data, &[]);
    let person = Person::new(dir.path());
    person.has_gnome(GNOME);
    let told = person.run(&node.data, &["proxy", "tell"], &[]);
    assert!(told.success(), "{told:?}");
    assert!(told.stderr.contains("Found by GNOME"), "{told:?}");
    assert!(told.stdout.contains("PROXY gnome.example:3128"), "{told:?}");
    let answer_of = answer(&node, "https://example.com");
    assert_eq!(answer_of["routes"], json!(["PROXY gnome.example:3129"]));
    assert_eq!(answer_of["source"], "desktop");
    assert_eq!(answer(&node, "https://a.corp")["bypass"], "*.corp");
    let file = data.join("proxy.json");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(fs::read_to_string(&file).unwrap().contains("secret"));
    for words in [
        &["proxy"][..],
        &["proxy", "http://example.com"],
        &["status"],
    ] {
        for more in [&[][..], &["--json"]] {
            let shown = node.run(&[words, more].concat());
            let shown = format!("{}{}", shown.stdout, shown.stderr);
            assert!(shown.contains("gnome.example"), "{shown}");
            assert!(
                !shown.contains("secret") && !shown.contains("alice"),
                "{shown}"
            );
        }
    }
    // It is there after a restart.
    node.stop();
    node.up(&[]);
    assert_eq!(answer(&node, "https://example.com")["source"], "desktop");
    assert!(!node.log().contains("secret"));
    let japanese = node.run(&["proxy", "https://example.com", "--lang", "ja"]);
    assert!(japanese.stdout.contains("デスクトップ"), "{japanese:?}");
    node.ask(&["proxy", "forget"]);
    assert_eq!(says(&node.ask(&["proxy"]), "desktop"), Value::Null);
    assert!(!file.exists());
}

#[test]
fn kde_and_the_session_are_read_where_there_is_no_gnome() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let person = Person::new(dir.path());
    let session = [("https_proxy", "http://session.example:1")];
    let told = person.run(&node.data, &["proxy", "tell"], &session);
    assert!(told.stdout.contains("PROXY session.example:1"), "{told:?}");
    fs::write(person.home.join(".config/kioslaverc"), KIOSLAVERC).unwrap();
    let told = person.run(&node.data, &["proxy", "tell"], &session);
    assert!(told.stdout.contains("PROXY kde.example:8080"), "{told:?}");
    person.has_gnome(GNOME);
    let kde = [("XDG_CURRENT_DESKTOP", "KDE")];
    let told = person.run(&node.data, &["proxy", "tell"], &kde);
    assert!(told.stdout.contains("PROXY kde.example:8080"), "{told:?}");
    // For a daemon of another user.
    let printed = person.run(&node.data, &["proxy", "tell", "--print"], &[]);
    assert!(
        printed.stdout.contains("alice:secret@gnome.example:3128"),
        "{printed:?}"
    );
    // Nothing is said any more.
    fs::remove_file(person.home.join("gsettings")).unwrap();
    fs::remove_file(person.home.join(".config/kioslaverc")).unwrap();
    let told = person.run(&node.data, &["proxy", "tell", "--json"], &[]);
    let state: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(says(&state, "desktop"), Value::Null);
}

#[test]
fn a_pac_file_is_asked_and_a_hostile_one_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir_all(&data).unwrap();
    let pac = dir.path().join("proxy.pac");
    let script = "function FindProxyForURL(url, host) {
        if (host == 'loop.example') for (;;) {}
        if (host == 'bomb.example') for (var a = [];;) a.push(new Uint8Array(1e7));
        return isPlainHostName(host) ? 'DIRECT' : 'PROXY p.example:8080; SOCKS5 s.example:1080; DIRECT';
    }";
    fs::write(&pac, script).unwrap();
    let config = format!(
        "proxy_pac = \"{}\"\nno_proxy = [\"*.corp\"]\n",
        pac.display()
    );
    fs::write(data.join("config.toml"), config).unwrap();
    let node = Node::start(&data, &[]);
    let routes = |url: &str| answer(&node, url)["routes"].clone();
    let named = json!(["PROXY p.example:8080", "SOCKS5 s.example:1080", "DIRECT"]);
    assert_eq!(routes("https://example.com"), named);
    assert_eq!(routes("https://intranet"), json!(["DIRECT"]));
    assert_eq!(answer(&node, "https://a.corp")["bypass"], "*.corp");
    for host in ["loop.example", "bomb.example"] {
        let begin = Instant::now();
        let told = answer(&node, &format!("https://{host}"));
        assert_eq!(told["routes"], json!(["DIRECT"]));
        assert!(told["notice"].is_string(), "{told}");
        assert!(begin.elapsed() < Duration::from_secs(15));
    }
    assert_eq!(routes("https://example.org"), named);
}

#[test]
fn a_company_signs_its_settings_and_nodes_take_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir_all(&data).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (file, key) = (path("settings.toml"), path("company.key"));
    let mut node = Node::new(&data);
    let sign = |node: &Node, text: &str, key: &str| {
        fs::write(&file, text).unwrap();
        node.ask(&["proxy", "sign", &file, "--key", key])
    };
    let signed = sign(
        &node,
        "version = 2\nproxy = \"http://two.example:1\"\n",
        &key,
    );
    let id = signed["company_key"].as_str().unwrap().to_owned();
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let config = format!("company_settings = \"{file}\"\ncompany_key = \"{id}\"\n");
    fs::write(data.join("config.toml"), config).unwrap();
    node.up(&[]);
    let says = |node: &Node| says(&node.ask(&["proxy"]), "company");
    let of_two = json!(["PROXY two.example:1"]);
    until("the company's settings", || says(&node) == of_two);
    // Neither what another key signed, nor an older version, nor a change without a version.
    for (text, key, notice) in [
        (
            "version = 9\nproxy = \"http://evil.example:1\"\n",
            path("evil.key"),
            "signed",
        ),
        (
            "version = 1\nproxy = \"http://one.example:1\"\n",
            key.clone(),
            "version",
        ),
        (
            "version = 2\nproxy = \"http://other.example:1\"\n",
            key.clone(),
            "version",
        ),
    ] {
        node.stop();
        sign(&node, text, &key);
        node.up(&[]);
        let noticed = || node.ask(&["status"])["notices"].to_string();
        until("a notice", || noticed().contains(notice));
        assert!(noticed().contains("version 2 is used"), "{}", noticed());
        assert_eq!(says(&node), of_two);
    }
    node.stop();
    // A node that the company names is joined.
    let other = Node::start(&dir.path().join("other"), &[]);
    let ticket = other.ask(&["invite"])["ticket"].clone();
    let text = format!("version = 3\nproxy = \"none\"\nbootstrap = [{ticket}]\n");
    sign(&node, &text, &key);
    node.up(&[]);
    until("newer settings", || says(&node) == json!(["DIRECT"]));
    until("the company's node", || node.ask(&["status"])["peers"] == 1);
    let wrong = node.run(&["proxy", "sign", &path("nowhere.toml"), "--key", &key]);
    assert!(
        !wrong.success() && wrong.stderr.contains("nowhere.toml"),
        "{wrong:?}"
    );
}
