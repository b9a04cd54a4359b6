//! Calls of the `ip` program (iproute2), by which the lab is built and changed.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::programs::find_program;

/// Where `ip netns` keeps the names of namespaces.
pub(crate) const NAMESPACES_DIRECTORY: &str = "/run/netns";

/// Where `ip netns exec` looks for files that take the place of those in `/etc`.
pub(crate) const ETC_DIRECTORY: &str = "/etc/netns";

/// Two `ip netns add` at the same moment may fail while the first one on a machine
/// prepares the directory; this many attempts are made.
const ADD_ATTEMPTS_MAX: u32 = 5;

/// Between two such attempts.
const ADD_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Runs `ip` with the given words and returns what it printed.
pub(crate) fn ip(words: &[&str]) -> Result<String> {
    let program = find_program("ip").context("the program `ip` is missing: install iproute2")?;
    let output = Command::new(program)
        .args(words)
        .output()
        .context("running ip")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", words.join(" "), message.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs several calls of `ip` in a namespace, one a line, in one process.
pub(crate) fn ip_batch(namespace: &str, lines: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new().context("making a temporary file")?;
    file.write_all(lines.as_bytes())
        .context("writing a temporary file")?;
    let path = file
        .path()
        .to_str()
        .context("a strange directory for temporary files")?;
    ip(&["-n", namespace, "-batch", path])?;
    Ok(())
}

/// Makes a namespace with its loopback interface up.
pub(crate) fn add_namespace(name: &str) -> Result<()> {
    let mut attempt = 1;
    while let Err(error) = ip(&["netns", "add", name]) {
        if attempt == ADD_ATTEMPTS_MAX {
            return Err(error);
        }
        attempt += 1;
        std::thread::sleep(ADD_RETRY_DELAY);
    }
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    Ok(())
}

/// Tells whether a namespace of this name exists.
pub(crate) fn namespace_exists(name: &str) -> bool {
    Path::new(NAMESPACES_DIRECTORY).join(name).exists()
}
