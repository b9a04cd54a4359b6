//! The guard: a process of the same program in which a PAC file is evaluated, one file and one question.
//!
//! Whoever answers for the PAC file, or for its name, chooses the program that runs here. So it runs where
//! there is nothing: the process has no environment, one socket to the daemon, may open no other file or
//! socket and start no process, is not root, and has [`MEMORY_BYTES_MAX`] of memory and [`CPU_S_MAX`] of
//! processor time. It is killed after [`TIME_MAX`]. Names are looked up by the daemon, which takes
//! [`LOOKUPS_MAX`] of them.
//!
//! Frames go over the socket, four octets of length (big endian) and JSON:
//!
//! ```text
//!   daemon  -- Question -------->  guard
//!           <-- Said::Resolve ---            as often as the file asks, LOOKUPS_MAX at most
//!           --- [addresses] ---->
//!           <-- Said::Answer ----            or Said::Failed
//! ```

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as Blocking;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::PacError;
use crate::target::Target;

/// The command of the program that is the guard.
pub const COMMAND: &str = "pac-guard";

/// The program that runs, also after another has taken its place on disk.
const PROGRAM: &str = "/proc/self/exe";

/// How long an evaluation takes at most, with the start of the process and all lookups.
pub const TIME_MAX: Duration = Duration::from_secs(5);

/// How long a lookup of a name takes at most.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(2);

/// How many names a file may have looked up for one answer.
pub const LOOKUPS_MAX: usize = 32;

/// What the process may have in memory besides what it had at its start, in octets.
pub const MEMORY_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// The processor time of the process, in seconds.
pub const CPU_S_MAX: u64 = 5;

/// The longest frame from the guard, in octets.
const SAID_BYTES_MAX: usize = 16 * 1024;

/// The longest frame to the guard, in octets: a PAC file, each character as an escape.
const TOLD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// User and group of nobody.
#[cfg(feature = "pac")]
const NOBODY: u32 = 65_534;

/// What a PAC file is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) script: String,
    pub(super) url: String,
    pub(super) host: String,
    /// The addresses of this host, the best first.
    pub(super) addresses: Vec<IpAddr>,
    /// The time, in milliseconds since 1970.
    pub(super) now_ms: f64,
}

/// What the guard says.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// A name to be looked up.
    Resolve(String),
    /// The answer of the file.
    Answer(String),
    /// The file does not work.
    Failed(String),
}

/// How guards are started.
#[derive(Clone, Debug)]
pub struct Guard {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Default for Guard {
    /// This program with [`COMMAND`].
    fn default() -> Self {
        Self {
            program: PROGRAM.into(),
            arguments: vec![COMMAND.into()],
        }
    }
}

impl Guard {
    /// Evaluates a PAC file in a process of its own, within [`TIME_MAX`].
    pub(super) async fn evaluate(&self, question: &Question) -> Result<String, PacError> {
        let (here, there) = Blocking::pair()?;
        here.set_nonblocking(true)?;
        let here = UnixStream::from_std(here)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().current_dir("/");
        if let Some(zone) = std::env::var_os("TZ") {
            command.env("TZ", zone);
        }
        command.stdin(Stdio::from(OwnedFd::from(there)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn()?;
        // The other end of the socket is the child's alone.
        drop(command);
        let answer = tokio::time::timeout(TIME_MAX, converse(here, question)).await;
        // It may have ended by itself.
        let _ = child.kill().await;
        answer.unwrap_or(Err(PacError::Slow))
    }
}

/// Asks the guard and looks names up for it.
async fn converse(mut stream: UnixStream, question: &Question) -> Result<String, PacError> {
    let frame = frame(question, TOLD_BYTES_MAX)?;
    stream.write_all(&frame).await.map_err(|_| PacError::Died)?;
    for _ in 0..=LOOKUPS_MAX {
        let mut length = [0; 4];
        let read = stream.read_exact(&mut length).await;
        read.map_err(|_| PacError::Died)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > SAID_BYTES_MAX {
            return Err(PacError::Died);
        }
        let mut octets = vec![0; length];
        let read = stream.read_exact(&mut octets).await;
        read.map_err(|_| PacError::Died)?;
        match serde_json::from_slice(&octets) {
            Ok(Said::Answer(answer)) => return Ok(answer),
            Ok(Said::Failed(what)) => return Err(PacError::Failed(what)),
            Ok(Said::Resolve(host)) => {
                let frame = self::frame(&resolve(&host).await, TOLD_BYTES_MAX)?;
                stream.write_all(&frame).await.map_err(|_| PacError::Died)?;
            }
            Err(_) => return Err(PacError::Died),
        }
    }
    Err(PacError::Failed("it looks too many names up".to_owned()))
}

/// Looks a name up by the system's resolver; none when there is none or nobody answers.
async fn resolve(host: &str) -> Vec<IpAddr> {
    let Ok(target) = Target::new("http", host, 0) else {
        return Vec::new();
    };
    let lookup = tokio::net::lookup_host((target.host(), 0));
    match tokio::time::timeout(LOOKUP_TIME_MAX, lookup).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).take(16).collect();
            addresses.dedup();
            addresses
        }
        _ => Vec::new(),
    }
}

/// Serves as the guard: evaluates the file that comes from the socket that is standard input.
///
/// # Errors
/// When the socket breaks, which nobody hears.
pub fn run() -> io::Result<()> {
    let stdin = io::stdin();
    let stream = Blocking::from(stdin.as_fd().try_clone_to_owned()?);
    let mut reading = stream.try_clone()?;
    let question: Question = read(&mut reading)?;
    let said = match answer(&question, &stream, reading) {
        Ok(answer) => Said::Answer(answer),
        Err(what) => Said::Failed(what),
    };
    say(&stream, &said)
}

#[cfg(feature = "pac")]
fn answer(question: &Question, stream: &Blocking, reading: Blocking) -> Result<String, String> {
    use std::cell::{Cell, RefCell};

    let writing = stream.try_clone().map_err(|error| error.to_string())?;
    let reading = RefCell::new(reading);
    let left = Cell::new(LOOKUPS_MAX);
    let resolve = move |host: String| {
        let Some(one_less) = left.get().checked_sub(1) else {
            return Vec::new();
        };
        if host.len() > 255 || say(&writing, &Said::Resolve(host)).is_err() {
            return Vec::new();
        }
        left.set(one_less);
        read(&mut reading.borrow_mut()).unwrap_or_default()
    };
    super::engine::evaluate(question, isolate, resolve)
}

#[cfg(not(feature = "pac"))]
fn answer(_: &Question, _: &Blocking, _: Blocking) -> Result<String, String> {
    Err("this build evaluates no PAC files".to_owned())
}

/// Gives up what the process does not need any more. What the system refuses is left: the other
/// limits hold nevertheless.
#[cfg(feature = "pac")]
fn isolate() {
    use nix::sys::prctl;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').next().and_then(|pages| pages.parse().ok());
    let now_bytes = pages.unwrap_or(0_u64).saturating_mul(4_096);
    let limits = [
        (Resource::RLIMIT_AS, now_bytes + MEMORY_BYTES_MAX),
        (Resource::RLIMIT_CPU, CPU_S_MAX),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, 0),
        (Resource::RLIMIT_NPROC, 0),
    ];
    for (resource, limit) in limits {
        let _ = setrlimit(resource, limit, limit);
    }
    if geteuid().is_root() {
        let _ = setgroups(&[]);
        let _ = setgid(Gid::from_raw(NOBODY));
        let _ = setuid(Uid::from_raw(NOBODY));
    }
    let _ = prctl::set_no_new_privs();
    let _ = prctl::set_dumpable(false);
}

fn frame(value: &impl Serialize, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; 4];
    serde_json::to_writer(&mut octets, value)?;
    let length = octets.len() - 4;
    if length > bytes_max {
        return Err(io::Error::other("what is to be said is too long"));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    octets[..4].copy_from_slice(&length.to_be_bytes());
    Ok(octets)
}

fn say(mut stream: &Blocking, said: &Said) -> io::Result<()> {
    stream.write_all(&frame(said, SAID_BYTES_MAX)?)
}

fn read<T: DeserializeOwned>(stream: &mut Blocking) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > TOLD_BYTES_MAX {
        return Err(io::Error::other("what is said is too long"));
    }
    let mut octets = vec![0; length];
    stream.read_exact(&mut octets)?;
    Ok(serde_json::from_slice(&octets)?)
}

#[cfg(all(test, feature = "pac"))]
pub(super) mod tests {
    use super::*;
    use std::time::Instant;

    /// Starts the tests' own program, of which one test serves as the guard.
    pub(in crate::pac) fn guard() -> Guard {
        let name = "pac::guard::tests::serves_as_the_guard_when_started_as_one";
        Guard {
            program: PROGRAM.into(),
            arguments: ["--exact", name, COMMAND].map(OsString::from).to_vec(),
        }
    }

    #[test]
    fn serves_as_the_guard_when_started_as_one() {
        if std::env::args().any(|argument| argument == COMMAND) {
            // Nobody hears whether the socket broke.
            let _ = run();
        }
    }

    async fn evaluate(body: &str) -> Result<String, PacError> {
        let question = Question {
            script: format!("function FindProxyForURL(url, host) {{ {body} }}"),
            url: "https://a.example/".to_owned(),
            host: "a.example".to_owned(),
            addresses: Vec::new(),
            now_ms: 0.0,
        };
        guard().evaluate(&question).await
    }

    /// How a process ends in which nothing is left to be done.
    const NOTHING_LEFT: i32 = 77;

    #[test]
    fn isolates_itself_when_started_to() {
        if std::env::args().all(|argument| argument != "isolated") {
            return;
        }
        isolate();
        let refused = [
            std::fs::File::open("/proc/self/status").is_err(),
            std::net::UdpSocket::bind("127.0.0.1:0").is_err(),
            std::process::Command::new("/bin/true").spawn().is_err(),
            Vec::<u8>::new().try_reserve_exact(200 << 20).is_err(),
            !nix::unistd::geteuid().is_root(),
        ];
        std::process::exit(if refused == [true; 5] {
            NOTHING_LEFT
        } else {
            1
        });
    }

    #[test]
    fn the_process_can_open_nothing_start_nothing_and_is_not_root() {
        let name = "pac::guard::tests::isolates_itself_when_started_to";
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["--exact", name, "isolated"]);
        let ended = command.output().unwrap();
        assert_eq!(ended.status.code(), Some(NOTHING_LEFT), "{ended:?}");
    }

    #[tokio::test]
    async fn a_process_of_its_own_answers() {
        let answer = evaluate("return 'PROXY ' + host + ':1 ' + dnsResolve('localhost');").await;
        assert_eq!(answer, Ok("PROXY a.example:1 127.0.0.1".to_owned()));
    }

    #[tokio::test]
    async fn hostile_files_end_and_hurt_nobody() {
        for body in [
            "for (;;) {}",
            "var a = []; for (;;) a.push(new Uint8Array(1e7));",
            "return FindProxyForURL(url, host) + 1;",
            "/(a+)+$/.test('a'.repeat(50) + 'b'); for (;;) {}",
            "for (;;) dnsResolve('localhost');",
            "throw {};",
        ] {
            let begin = Instant::now();
            let answer = evaluate(body).await;
            assert!(answer.is_err(), "{body}: {answer:?}");
            let limit = TIME_MAX + Duration::from_secs(2);
            assert!(begin.elapsed() < limit, "{body}");
        }
    }

    #[tokio::test]
    async fn a_guard_that_is_silent_is_killed_and_one_that_babbles_is_left() {
        let question = Question {
            script: String::new(),
            url: String::new(),
            host: String::new(),
            addresses: Vec::new(),
            now_ms: 0.0,
        };
        let of = |program: &str, arguments: &[&str]| Guard {
            program: program.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
        };
        let silent = of("/bin/sleep", &["60"]).evaluate(&question).await;
        assert_eq!(silent, Err(PacError::Slow));
        let dead = of("/bin/true", &[]).evaluate(&question).await;
        assert_eq!(dead, Err(PacError::Died));
        let babbles = of("/bin/sh", &["-c", "exec yes >&0"]);
        assert_eq!(babbles.evaluate(&question).await, Err(PacError::Died));
    }
}
