//! Child processes with certain ends: guards, time limits, captured output.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// What [`run`] keeps of each of the two output streams, in octets; the rest is cut.
pub const OUTPUT_BYTES_MAX: u64 = 4 << 20;

/// How often a waiting thread looks whether the child has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Returns a command for a program that the kernel kills when its parent dies.
///
/// The parent is the *thread* that spawns it: use [`Process::spawn`] or [`run`],
/// which spawn from a thread that lasts, rather than `Command::spawn` on a thread
/// that may end before the child should.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    // A program of util-linux does this before it becomes the wanted program, so
    // that no unsafe code has to run between fork and exec.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running child; dropping it kills it and its process group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command in a process group of its own, without input, its output
    /// appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening the log {}", log.display()))?;
        let copy = file.try_clone().context("duplicating the log's handle")?;
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        Ok(Self {
            child: spawn_lasting(command)?,
            log: log.to_owned(),
        })
    }

    /// Returns the process id, which is also the id of its process group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the memory that is resident now, in megabytes.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn rss_mb(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        parse_rss_mb(&status).with_context(|| format!("no VmRSS in {path}"))
    }

    /// Returns the processor time used since the start, in seconds.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn cpu_s(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.id());
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        parse_cpu_s(&stat).with_context(|| format!("{path} cannot be read"))
    }

    /// Returns the file that its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Tells whether it still runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self
            .child
            .try_wait()
            .context("asking for a child's state")?
            .is_none())
    }

    /// Waits until it ends and returns its status, or `None` when `timeout` passes first.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        wait_until(&mut self.child, Instant::now() + timeout)
    }

    /// Asks it to end (SIGTERM), kills it when `grace` has passed, and returns its status.
    ///
    /// # Errors
    /// When the signal cannot be sent or the system does not give the status.
    pub fn terminate(&mut self, grace: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.wait(Duration::ZERO)? {
            return Ok(status);
        }
        kill(pid(&self.child), Signal::SIGTERM).context("sending SIGTERM")?;
        match self.wait(grace)? {
            Some(status) => Ok(status),
            None => kill_group(&mut self.child),
        }
    }

    /// Kills it and its process group at once (SIGKILL) and returns its status.
    ///
    /// # Errors
    /// When the system does not give the status.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        kill_group(&mut self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failure leaves a child that the kernel kills when this process ends.
        let _ = kill_group(&mut self.child);
    }
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended; killed by SIGKILL when the time was over.
    pub status: ExitStatus,
    /// What it wrote, at most [`OUTPUT_BYTES_MAX`] octets, other than UTF-8 replaced.
    pub stdout: String,
    /// What it complained of, with the same limit.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
    /// Whether it was killed because the time was over.
    pub timed_out: bool,
}

impl Output {
    /// Tells whether it ended by itself with exit code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// Runs a command without input until it ends, or kills it and its process group
/// when `timeout` has passed.
///
/// # Errors
/// When it cannot be started or its output cannot be read; a bad exit code is no error.
pub fn run(mut command: Command, timeout: Duration) -> Result<Output> {
    // Files rather than pipes: a grandchild that keeps a pipe open cannot hold us up.
    let mut stdout = tempfile::tempfile().context("making a temporary file")?;
    let mut stderr = tempfile::tempfile().context("making a temporary file")?;
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().context("duplicating a handle")?)
        .stderr(stderr.try_clone().context("duplicating a handle")?);
    let started = Instant::now();
    let mut child = spawn_lasting(command)?;
    let ended = wait_until(&mut child, started + timeout)?;
    let timed_out = ended.is_none();
    let status = match ended {
        Some(status) => status,
        None => kill_group(&mut child)?,
    };
    Ok(Output {
        status,
        elapsed: started.elapsed(),
        timed_out,
        stdout: read_back(&mut stdout)?,
        stderr: read_back(&mut stderr)?,
    })
}

/// Spawns a command, in a process group of its own, from a thread that lasts as
/// long as this process: Linux sends the parent-death signal when the thread that
/// spawned the child ends.
fn spawn_lasting(mut command: Command) -> Result<Child> {
    command.process_group(0);
    let what = format!("starting {command:?}");
    let (reply, answer) = mpsc::channel();
    SPAWNER
        .as_ref()
        .and_then(|spawner| spawner.send(Job { command, reply }).ok())
        .ok_or_else(|| anyhow!("the thread that starts children could not be started"))?;
    let spawned = answer
        .recv()
        .context("the thread that starts children ended")?;
    spawned.context(what)
}

/// Starts the thread that starts children, unless it runs already. To be called before
/// a thread changes its network: a spawner born there would start every child there.
pub(crate) fn prepare_spawner() {
    LazyLock::force(&SPAWNER);
}

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<Option<Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    let serve = move || {
        for Job { mut command, reply } in queue {
            // Whoever asked waits for the answer, so it is always received.
            let _ = reply.send(command.spawn());
        }
    };
    let thread = thread::Builder::new().name("lab-spawner".into());
    thread.spawn(serve).is_ok().then_some(jobs)
});

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait().context("waiting for a child")?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Kills a child's process group unless the child was waited for already (then its
/// number may belong to someone else), and returns the child's status.
fn kill_group(child: &mut Child) -> Result<ExitStatus> {
    if let Some(status) = child.try_wait().context("waiting for a child")? {
        return Ok(status);
    }
    match killpg(pid(child), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).context("sending SIGKILL"),
    }
    child.wait().context("waiting for a killed child")
}

fn pid(child: &Child) -> Pid {
    // Process ids are positive and below 2^22 on Linux (proc(5), pid_max).
    Pid::from_raw(child.id().cast_signed())
}

fn read_back(file: &mut File) -> Result<String> {
    let mut octets = Vec::new();
    file.rewind().context("reading a command's output")?;
    file.take(OUTPUT_BYTES_MAX)
        .read_to_end(&mut octets)
        .context("reading a command's output")?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// Reads `VmRSS:  1234 kB` (units of 1,024 octets) of `/proc/PID/status`.
fn parse_rss_mb(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// Reads `utime` and `stime` of `/proc/PID/stat`, which count in ticks of 10 ms. The
/// name before them is in parentheses and may hold anything.
fn parse_cpu_s(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::daemon::until;

    fn shell(script: &str) -> Command {
        let mut command = command("sh");
        command.args(["-c", script]);
        command
    }

    /// Waits until a script has set its trap, and says so.
    fn await_ready(log: &Path) {
        let is_ready = || Ok(std::fs::read_to_string(log)?.contains("ready\n"));
        until(Duration::from_secs(20), "the script is ready", is_ready).unwrap();
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let output = run(
            shell("echo out; echo err >&2; exit 7"),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert!(!output.success() && !output.timed_out);
    }

    #[test]
    fn time_is_bounded_even_when_a_grandchild_holds_the_output() {
        let output = run(shell("sleep 60 & sleep 60"), Duration::from_millis(200)).unwrap();
        assert!(output.timed_out);
        assert_eq!(output.status.signal(), Some(9));
        assert!(output.elapsed < Duration::from_secs(30));
    }

    #[test]
    fn terminate_is_gentle_first_and_drop_kills() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        let mut gentle = Process::spawn(shell(script), &log).unwrap();
        await_ready(&log);
        assert_eq!(
            gentle.terminate(Duration::from_secs(20)).unwrap().code(),
            Some(3)
        );
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "ready\nbye\n");

        let log = directory.path().join("other");
        let stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
        let mut stubborn = Process::spawn(stubborn, &log).unwrap();
        await_ready(&log);
        let status = stubborn.terminate(Duration::from_millis(200)).unwrap();
        assert_eq!(status.signal(), Some(9));

        let dropped = Process::spawn(shell("sleep 30"), &log).unwrap();
        let id = pid(&dropped.child);
        drop(dropped);
        assert_eq!(kill(id, None), Err(Errno::ESRCH));
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let asker = thread::spawn(move || Process::spawn(shell("sleep 30"), &log).unwrap());
        let mut child = asker.join().unwrap();
        assert_eq!(child.wait(Duration::from_millis(100)).unwrap(), None);
        assert!(child.is_running().unwrap());
    }

    #[test]
    fn reads_memory_and_processor_time() {
        let status = "Name:\tenishi\nVmRSS:\t   10000 kB\n";
        assert_eq!(parse_rss_mb(status), Some(10.24));
        assert_eq!(parse_rss_mb(""), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0";
        assert_eq!(parse_cpu_s(stat), Some(2.0));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(parse_cpu_s(&own).is_some());
    }
}
