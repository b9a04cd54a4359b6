//! Real proxies on ports of this host, with the configuration of a test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use enishi_lab::process::{Process, command};
use enishi_lab::{ensure_programs, is_root};
use tempfile::TempDir;

/// User and password that the proxies take.
pub(crate) const USER: &str = "aki";
pub(crate) const PASSWORD: &str = "sesame";

/// How long a proxy may take to listen.
const START_WITHIN: Duration = Duration::from_secs(20);

/// A proxy; dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

/// Whether the proxies are there, or could be installed. Says so when they are not.
pub(crate) fn can_run() -> bool {
    let programs = [
        ("squid", "squid"),
        ("tinyproxy", "tinyproxy-bin"),
        ("setpriv", "util-linux"),
    ];
    if !is_root() && ensure_programs(&programs).is_err() {
        eprintln!("skipped: squid and tinyproxy are not installed, and this is not root");
        return false;
    }
    ensure_programs(&programs).expect("squid and tinyproxy can be installed");
    true
}

/// Starts squid. `lines` go before the one that lets everybody in.
pub(crate) fn squid(lines: &str) -> Proxy {
    let directory = directory();
    let at = directory.path().display().to_string();
    let port = free_port();
    // The user and the password, as the helpers of squid read them.
    write(
        &directory,
        "digest",
        "aki:lab:e5889fbc26804e4863e389bc862caeb9\n",
    );
    write(
        &directory,
        "basic",
        "aki:$apr1$labslabs$zJCTe.QeMDUI6mJJ6pbkU.\n",
    );
    let text = format!(
        "http_port 127.0.0.1:{port}\nacl lab src all\ncache_mem 16 MB\n\
         access_log stdio:{at}/access.log\ncache_log {at}/cache.log\npid_filename {at}/squid.pid\n\
         netdb_filename none\npinger_enable off\nshutdown_lifetime 0 seconds\n\
         visible_hostname lab\ncoredump_dir {at}\n{}http_access allow lab\n",
        lines.replace("DIRECTORY", &at)
    );
    let file = write(&directory, "squid.conf", &text);
    let mut squid = command("squid");
    squid.args(["-N", "-f", &file, "-n", &format!("lab{port}")]);
    start(squid, directory, port)
}

/// Starts tinyproxy with further lines of configuration.
pub(crate) fn tinyproxy(lines: &str) -> Proxy {
    let directory = directory();
    let port = free_port();
    let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\n{lines}");
    let file = write(&directory, "tinyproxy.conf", &text);
    let mut tinyproxy = command("tinyproxy");
    tinyproxy.args(["-d", "-c", &file]);
    start(tinyproxy, directory, port)
}

fn start(command: std::process::Command, directory: TempDir, port: u16) -> Proxy {
    let log = directory.path().join("output.log");
    let mut process = Process::spawn(command, &log).expect("the proxy starts");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let end = Instant::now() + START_WITHIN;
    while TcpStream::connect(address).is_err() {
        let runs = process.is_running().expect("the proxy can be asked after");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        assert!(runs && Instant::now() < end, "no proxy: {}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
    Proxy {
        address,
        _process: process,
        _directory: directory,
    }
}

/// A directory that a proxy can use which gives up the rights of root.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(directory.path(), all).expect("its mode can be set");
    directory
}

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("a file can be written");
    let readable = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&path, readable).expect("its mode can be set");
    display(&path)
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
