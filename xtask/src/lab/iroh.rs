//! iroh alone, of the version that Enishi is built with, beside it in the same places: its own relay
//! server among the public hosts, and an endpoint on each host.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use enishi_lab::wire::INTERNET;
use enishi_lab::{Host, Process, Stack, World, ensure_programs, until};
use serde_json::Value;

use crate::program;

/// What the relay server is called, in the hosts files of all.
const RELAY_NAME: &str = "relay.lab";
/// How long the relay server, and an endpoint, may take to be there: an endpoint waits 15 seconds
/// for its relay.
const START_TIME_MAX: Duration = Duration::from_secs(45);
/// How long an attempt may take: the endpoint gives up after 22 seconds.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(60);

/// How soon one spoke to another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// After how long the first word was answered.
    pub(super) first: Option<Duration>,
    /// After how long words went straight.
    pub(super) direct: Option<Duration>,
}

/// The programs of iroh.
pub(super) struct Programs {
    relay: PathBuf,
    endpoint: PathBuf,
}

impl Programs {
    /// Builds them: the relay server once, since it is no part of the workspace and is kept with the
    /// other programs that ours is held against; the endpoint for release, unless one is given.
    ///
    /// # Errors
    /// When one of them does not build.
    pub(super) fn get(root: &Path, endpoint: Option<PathBuf>) -> anyhow::Result<Self> {
        let version = locked(root, "iroh-relay")?;
        let home = root
            .join("target/peers")
            .join(format!("iroh-relay-{version}"));
        let relay = home.join("bin/iroh-relay");
        if !relay.exists() {
            eprintln!("building iroh-relay {version}: some minutes, once");
            let status = Command::new(env!("CARGO"))
                .args(["install", "--quiet", "--locked", "--features", "server"])
                .args(["--version", &version, "--root"])
                .arg(&home)
                .arg("iroh-relay")
                .status()?;
            ensure!(status.success(), "iroh-relay {version} does not build");
        }
        let build = || program::build_example(root, "enishi-host", "iroh_alone");
        let endpoint = endpoint.map_or_else(build, Ok)?;
        Ok(Self { relay, endpoint })
    }
}

/// Returns the version of a crate that the workspace is locked to.
fn locked(root: &Path, name: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let entry = format!("name = \"{name}\"\nversion = \"");
    let (_, rest) = text
        .split_once(&entry)
        .with_context(|| format!("no {name} in Cargo.lock"))?;
    let (version, _) = rest.split_once('"').context("a strange Cargo.lock")?;
    Ok(version.to_owned())
}

/// The relay server.
pub(super) struct Relay<'p> {
    programs: &'p Programs,
    /// A hosts file that knows it.
    names: String,
    certificate: PathBuf,
    process: Process,
}

impl<'p> Relay<'p> {
    /// Starts it on a public host with IPv4 and IPv6: HTTPS at 443, and QUIC that tells addresses
    /// at its own port.
    ///
    /// # Errors
    /// When it does not listen in time, or there is no certificate for it.
    pub(super) fn start(
        programs: &'p Programs,
        world: &mut World,
        data: &Path,
    ) -> anyhow::Result<Self> {
        let host = world.host_of("relay", INTERNET, Stack::Dual)?;
        let [key, certificate, file, log] = ["key.pem", "certificate.pem", "toml", "log"]
            .map(|end| data.join(format!("relay.{end}")));
        certify(&key, &certificate)?;
        let configuration = format!(
            "enable_quic_addr_discovery = true\nenable_metrics = false\n[tls]\n\
             cert_mode = \"Manual\"\nmanual_cert_path = {certificate:?}\nmanual_key_path = {key:?}\n"
        );
        fs::write(&file, configuration).context("writing the configuration of the relay")?;
        let mut command = host.command(&programs.relay);
        command.arg("--config-path").arg(&file);
        let process = host.spawn(command, &log)?;
        until(START_TIME_MAX, "the relay server listens", || {
            let listening = host.run(&["ss", "-Hltn", "sport = :443"], START_TIME_MAX)?;
            Ok(listening.stdout.contains(":443"))
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        let mut names = format!("127.0.0.1 localhost\n{} {RELAY_NAME}\n", host.address());
        if let Some(address) = host.address_v6() {
            names += &format!("{address} {RELAY_NAME}\n");
        }
        Ok(Self {
            programs,
            names,
            certificate,
            process,
        })
    }

    /// Returns the hosts file in which it is.
    pub(super) fn names(&self) -> &str {
        &self.names
    }

    /// Returns its process, which lives as long as it is kept.
    pub(super) fn into_process(self) -> Process {
        self.process
    }

    /// Starts an endpoint on a host, which takes the proxy that it is told.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn endpoint(
        &self,
        host: &Host,
        data: &Path,
        proxy: Option<&str>,
    ) -> anyhow::Result<Endpoint> {
        let [socket, log] = ["iroh.sock", "iroh.log"].map(|end| data.with_extension(end));
        let mut command = host.command(&self.programs.endpoint);
        command.arg(format!("https://{RELAY_NAME}"));
        command.args([&self.certificate, &socket]);
        command.env("RUST_LOG", "off");
        if let Some(proxy) = proxy {
            command.env("https_proxy", proxy);
        }
        let process = host.spawn(command, &log)?;
        let mut told = None;
        until(START_TIME_MAX, "an endpoint of iroh is there", || {
            let said = fs::read_to_string(&log)?;
            let line = said.lines().find(|line| line.starts_with('{'));
            told = line.and_then(|line| serde_json::from_str::<Value>(line).ok());
            Ok(told.is_some())
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        let told = told.context("an endpoint that says nothing")?;
        if told["online"] != true {
            eprintln!("{}: iroh does not come to its relay", host.name());
        }
        Ok(Endpoint {
            id: told["id"]
                .as_str()
                .context("an endpoint without an id")?
                .to_owned(),
            socket,
            _process: process,
        })
    }
}

/// Makes a certificate for the relay server, signed by itself.
fn certify(key: &Path, certificate: &Path) -> anyhow::Result<()> {
    ensure_programs(&[("openssl", "openssl")])?;
    let name = format!("subjectAltName=DNS:{RELAY_NAME}");
    // Who looks at it trusts it for what it is, and takes no authority's for a server's.
    let kind = "basicConstraints=critical,CA:FALSE";
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args([
        "-subj",
        &format!("/CN={RELAY_NAME}"),
        "-addext",
        &name,
        "-addext",
        kind,
    ]);
    command.arg("-keyout").arg(key).arg("-out").arg(certificate);
    let output = command.output().context("running openssl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl: {said}");
    Ok(())
}

/// An endpoint on one host.
pub(super) struct Endpoint {
    id: String,
    socket: PathBuf,
    _process: Process,
}

impl Endpoint {
    /// Has it speak to another one for the first time.
    ///
    /// # Errors
    /// When it does not answer to us.
    pub(super) fn attempt(&self, to: &Self) -> anyhow::Result<Times> {
        let mut stream = UnixStream::connect(&self.socket).context("asking an endpoint of iroh")?;
        stream.set_read_timeout(Some(ATTEMPT_TIME_MAX))?;
        writeln!(stream, "{}", to.id)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let found: Value =
            serde_json::from_str(&line).with_context(|| format!("reading {line:?}"))?;
        let seconds = |key: &str| found[key].as_f64().map(Duration::from_secs_f64);
        Ok(Times {
            first: seconds("first_s"),
            direct: seconds("direct_s"),
        })
    }
}
