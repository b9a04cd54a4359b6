//! Whoever names the proxy, connections take it: the environment of the daemon, a PAC file, a company's
//! file, a desktop. The node is where nothing else leads out, and the proxy's own log tells who was asked
//! for. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod desktop;
mod net;
mod site;

use std::fs;
use std::time::{Duration, Instant};

use enishi_lab::{Daemon, ForwardProxy, Host, until};
use serde_json::{Value, json};

use desktop::Person;
use net::{A_WHILE, Net, id, status, wait, way};
use site::{GATE, PROXY, Site, has_passed, log};

/// Where another squid listens.
const OTHER_PROXY: &str = "192.168.1.1:3129";

/// How long a node that is alone may take with a proxy that it is told: it asks for others every ten
/// seconds or so.
const AT_ONCE: Duration = Duration::from_secs(30);

/// What GNOME says.
const GNOME: &str = "\
org.gnome.system.proxy ignore-hosts ['localhost', '*.corp']
org.gnome.system.proxy mode 'manual'
org.gnome.system.proxy.http host ''
org.gnome.system.proxy.http port 8080
org.gnome.system.proxy.https host '192.168.1.1'
org.gnome.system.proxy.https port 3128
";

/// Nodes outside take links where companies let these out, and carry for nobody.
struct Scene {
    outside: [(Host, Daemon); 2],
    ticket: String,
    site: Site,
    // The network goes last.
    net: Net,
}

impl Scene {
    /// None without root.
    fn open(name: &str) -> Option<Self> {
        let mut net = Net::open(name)?;
        let hosts = ["s0", "s1"].map(|name| net.world.public(name).unwrap());
        let site = Site::new(&mut net);
        let config = "relay = false\nweb_ports = [80, 443]\n";
        let [first, second] = hosts;
        let (one, ticket) = net.found(&first, config);
        let words = ["--no-tun", "--no-dns", "--bootstrap", &ticket];
        let other = net.start(&second, config, &words);
        wait(&other, "it joins", |status| status["joined"] == true);
        Some(Self {
            outside: [(first, one), (second, other)],
            ticket,
            site,
            net,
        })
    }

    /// Starts the node inside, which has an invitation.
    fn node(&self, config: &str, variables: &[(&str, &str)]) -> Daemon {
        let words = ["--no-tun", "--no-dns", "--bootstrap", &self.ticket];
        let inside = &self.site.inside;
        self.net.start_with(inside, config, &words, variables)
    }

    /// Waits until a node reaches those outside, each by its squid, which was named by this source. Then
    /// ends it, and waits until the squids have written down the connections.
    fn reaches_all(&self, node: Daemon, source: &str, squids: [&ForwardProxy; 2]) {
        wait(&node, "it joins", |status| status["joined"] == true);
        for ((host, daemon), squid) in self.outside.iter().zip(squids) {
            let (address, other) = (host.address(), id(daemon));
            let wanted = format!("direct tcp {address}:443 by the proxy {}", squid.address());
            let reached = until(
                A_WHILE,
                "it is reached",
                || Ok(way(&node, &other) == wanted),
            );
            reached.unwrap_or_else(|error| {
                let way = way(&node, &other);
                panic!("{error}: {way}, not {wanted}\n{}", node.log())
            });
            let chosen = choice(&node, &format!("https://{address}"));
            assert_eq!(chosen["source"], source, "{chosen}");
        }
        drop(node);
        for ((host, _), squid) in self.outside.iter().zip(squids) {
            until(A_WHILE, "the proxy's log has it", || {
                Ok(has_connected(squid, host))
            })
            .unwrap_or_else(|error| panic!("{error}: {}", log(squid)));
        }
    }
}

/// What the node says of which proxy is to be taken for a URL.
fn choice(node: &Daemon, url: &str) -> Value {
    node.json(&["proxy", url]).unwrap()["choice"].clone()
}

/// Tells whether a connection to a host has passed a squid and has ended.
fn has_connected(squid: &ForwardProxy, host: &Host) -> bool {
    has_passed(squid, "CONNECT", &format!("{}:443 ", host.address()))
}

#[test]
fn the_environment_of_the_daemon_names_the_proxy() {
    let Some(scene) = Scene::open("envir") else {
        return;
    };
    let squid = scene.site.squid(PROXY, "");
    let proxy = format!("http://{PROXY}");
    let variables = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "corp.example,10.0.0.0/8"),
    ];
    let node = scene.node("", &variables);
    assert_eq!(choice(&node, "https://10.1.1.1")["bypass"], "10.0.0.0/8");
    scene.reaches_all(node, "environment", [&squid; 2]);
}

#[test]
fn requests_take_the_proxy_that_the_environment_has_for_them() {
    let Some(scene) = Scene::open("envreq") else {
        return;
    };
    let squid = scene.site.squid(PROXY, "http_access deny CONNECT\n");
    let proxy = format!("http://{PROXY}");
    let node = scene.node("", &[("http_proxy", proxy.as_str())]);
    let (host, daemon) = &scene.outside[0];
    let (address, other) = (host.address(), id(daemon));
    let head = format!("direct http {address}:");
    let tail = format!(" by the proxy {PROXY}");
    let is_reached = || {
        let way = way(&node, &other);
        way.starts_with(&head) && way.ends_with(&tail)
    };
    until(A_WHILE, "it is reached", || Ok(is_reached()))
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", way(&node, &other), node.log()));
    wait(&node, "it joins", |status| status["joined"] == true);
    until(A_WHILE, "the proxy's log has it", || {
        let passed = |method| has_passed(&squid, method, &format!("http://{address}"));
        Ok(passed("POST") || passed("GET"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", log(&squid)));
}

/// A node whose PAC file names one squid for the first node outside and another one for the second.
fn asks_a_pac_file(name: &str, by_http: bool) {
    let Some(scene) = Scene::open(name) else {
        return;
    };
    let squids = [PROXY, OTHER_PROXY].map(|at| scene.site.squid(at, ""));
    let web = scene.net.path("web");
    fs::create_dir(&web).unwrap();
    scene.site.serve(&web);
    let second = scene.outside[1].0.address();
    let script = format!(
        "function FindProxyForURL(url, host) {{
            if (!isInNet(myIpAddress(), '192.168.1.0', '255.255.255.0')) return 'DIRECT';
            if (host == '{second}') return 'PROXY {GATE}:9; PROXY {OTHER_PROXY}';
            return isInNet(host, '11.0.0.0', '255.0.0.0') ? 'PROXY {PROXY}' : 'DIRECT';
        }}"
    );
    let file = web.join("proxy.pac");
    fs::write(&file, script).unwrap();
    let place = match by_http {
        true => format!("http://{GATE}/proxy.pac"),
        false => file.display().to_string(),
    };
    let node = scene.node(&format!("proxy_pac = \"{place}\"\n"), &[]);
    let chosen = choice(&node, "https://12.0.0.1");
    assert_eq!(chosen["routes"], json!(["DIRECT"]));
    assert_eq!(chosen["pac"], place);
    let [one, other] = &squids;
    scene.reaches_all(node, "configuration", [one, other]);
    // Nobody was asked for whom the file names the other one.
    let [(first, _), (second, _)] = &scene.outside;
    assert!(!has_connected(one, second), "{}", log(one));
    assert!(!has_connected(other, first), "{}", log(other));
}

#[test]
fn a_pac_file_on_the_disk_names_a_proxy_for_each_host() {
    asks_a_pac_file("pacdisk", false);
}

#[test]
fn a_pac_file_of_a_web_server_names_a_proxy_for_each_host() {
    asks_a_pac_file("pacweb", true);
}

#[test]
fn a_company_names_the_proxy_and_whom_to_join_by() {
    let Some(scene) = Scene::open("firm") else {
        return;
    };
    let squid = scene.site.squid(PROXY, "");
    let web = scene.net.path("web");
    fs::create_dir(&web).unwrap();
    scene.site.serve(&web);
    let (_, first) = &scene.outside[0];
    let ticket = first.json(&["invite"]).unwrap()["ticket"].clone();
    let text = format!("version = 1\nproxy = \"http://{PROXY}\"\nbootstrap = [{ticket}]\n");
    let (file, key) = (web.join("settings.toml"), scene.net.path("company.key"));
    fs::write(&file, text).unwrap();
    let [file, key] = [&file, &key].map(|path| path.to_str().unwrap());
    let signed = first.json(&["proxy", "sign", file, "--key", key]).unwrap();
    let config = format!(
        "company_settings = \"http://{GATE}/settings.toml\"\ncompany_key = {}\n",
        signed["company_key"]
    );
    // Nothing else tells the node whom to join by.
    let words = ["--no-tun", "--no-dns"];
    let node = scene.net.start(&scene.site.inside, &config, &words);
    scene.reaches_all(node, "company", [&squid; 2]);
}

#[test]
fn a_proxy_that_a_desktop_tells_is_taken_at_once() {
    let Some(scene) = Scene::open("desk") else {
        return;
    };
    let squid = scene.site.squid(PROXY, "");
    let node = scene.node("", &[]);
    // It tries in vain, and ever later.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(status(&node)["joined"], false);
    let person = Person::new(scene.net.directory.path());
    person.has_gnome(GNOME);
    let told = person.run(node.data(), &["proxy", "tell"], &[]);
    assert!(told.success(), "{told:?}");
    let started = Instant::now();
    wait(&node, "it joins", |status| status["joined"] == true);
    assert!(started.elapsed() < AT_ONCE);
    scene.reaches_all(node, "desktop", [&squid; 2]);
}
