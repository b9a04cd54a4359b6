//! The guard: a process of the same program that waits for the daemon's end, however it
//! comes about, and then takes the daemon's server out of the file. It has a pipe of which
//! the daemon holds the other end; the system closes that when the daemon is no more.

use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::SigSet;

use super::file;

/// The command of the program that is the guard.
pub const COMMAND: &str = "resolver-guard";

/// The program that runs, also after another has taken its place on disk.
const PROGRAM: &str = "/proc/self/exe";

/// A running guard.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts one, in a process group of its own: what ends the daemon's group is not to end
    /// the guard.
    pub(super) fn start(file: &Path, server: IpAddr) -> io::Result<Self> {
        let mut command = Command::new(PROGRAM);
        command.arg(COMMAND).arg(file).arg(server.to_string());
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0).current_dir("/");
        command.spawn().map(Self)
    }

    /// Tells whether it still waits.
    pub(super) fn is_there(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Lets it go: nothing is left to be done.
    pub(super) fn dismiss(mut self) {
        drop(self.0.stdin.take());
        // It ends within milliseconds; nobody needs to wait.
        thread::spawn(move || self.0.wait());
    }
}

/// Waits until standard input ends, and takes the server out of the file. Signals meant for
/// the daemon, such as Ctrl-C or those of a service manager, do not end it.
///
/// # Errors
/// When the file cannot be written.
pub fn run(file: &Path, server: IpAddr) -> io::Result<()> {
    // What cannot be blocked would end it, and is meant to.
    let _ = SigSet::all().thread_block();
    let mut octets = [0; 64];
    while !matches!(io::stdin().lock().read(&mut octets), Ok(0)) {}
    file::take_out(file, server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_is_gone_is_noticed() {
        let mut command = Command::new("true");
        command.stdin(Stdio::piped());
        let mut guard = Guard(command.spawn().unwrap());
        while guard.is_there() {
            thread::yield_now();
        }
    }
}
