//! The programs that a lab needs: finding them, and installing the missing ones.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Directories searched after those of `PATH`, which leaves them out for many users.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Where Debian has the programs of each version of PostgreSQL, in `VERSION/bin`.
const POSTGRESQL_DIRECTORY: &str = "/usr/lib/postgresql";

/// How long apt-get may wait for another one to finish, in seconds.
const APT_LOCK_WAIT_S: u32 = 60;

/// Tells whether the process has the rights of root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes sure that programs are there, given as (program, Debian package).
///
/// As root on a system with `apt-get`, installs the packages of those that are
/// missing and says so on standard error. Runs at most one `apt-get update` and
/// one `apt-get install`.
///
/// # Errors
/// When a program is missing and cannot be installed; the text says what to install.
pub fn ensure_programs(wanted: &[(&str, &str)]) -> Result<()> {
    let missing = missing_packages(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let advice = format!("install them as root: apt-get install {packages}");
    if !is_root() {
        bail!("needed programs are missing; {advice}");
    }
    let apt_get = find_program("apt-get")
        .with_context(|| format!("needed programs are missing and there is no apt-get; install what Debian calls: {packages}"))?;
    eprintln!("installing missing Debian packages: {packages}");
    apt(&apt_get, &["update"], &[])?;
    apt(
        &apt_get,
        &["install", "-y", "--no-install-recommends"],
        &missing,
    )
    .context(advice.clone())?;
    ensure!(
        missing_packages(wanted).is_empty(),
        "still missing; {advice}"
    );
    Ok(())
}

/// Returns the path of an executable in `PATH`, `/usr/sbin`, `/sbin`, or among the programs of
/// PostgreSQL that Debian has nowhere else.
pub fn find_program(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = Path::new(program.as_ref());
    if program.components().count() > 1 {
        return is_executable(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .chain(postgresql_directories())
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

fn postgresql_directories() -> impl Iterator<Item = PathBuf> {
    let versions = std::fs::read_dir(POSTGRESQL_DIRECTORY)
        .into_iter()
        .flatten();
    versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("bin"))
}

/// Returns the packages of missing programs, each once.
fn missing_packages<'a>(wanted: &[(&str, &'a str)]) -> Vec<&'a str> {
    let mut packages: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn apt(apt_get: &Path, words: &[&str], packages: &[&str]) -> Result<()> {
    let output = Command::new(apt_get)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "-q",
            "-o",
            &format!("DPkg::Lock::Timeout={APT_LOCK_WAIT_S}"),
        ])
        .args(words)
        .args(packages)
        .output()
        .context("running apt-get")?;
    ensure!(
        output.status.success(),
        "apt-get {} failed: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_and_names_the_missing_packages_once() {
        assert!(find_program("sh").is_some());
        assert!(find_program("/bin/sh").is_some());
        assert!(find_program("/etc/passwd").is_none());
        let wanted = [
            ("sh", "dash"),
            ("no-such-1", "nothing"),
            ("no-such-2", "nothing"),
        ];
        assert_eq!(missing_packages(&wanted), ["nothing"]);
        ensure_programs(&[("sh", "dash")]).unwrap();
    }
}
