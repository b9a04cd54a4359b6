//! Which data directory is meant when none is named.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The data directory of the administrator's node.
const SYSTEM_DIR: &str = "/var/lib/enishi";

/// Gives the data directory that `--data` or `ENISHI_DATA` name, otherwise
/// `/var/lib/enishi` for root and `$XDG_DATA_HOME/enishi` or
/// `~/.local/share/enishi` for everybody else.
pub(crate) fn choose(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| default(is_root(), env::var_os("XDG_DATA_HOME"), env::var_os("HOME")))
}

/// Whether the program runs as root.
pub(crate) fn is_root() -> bool {
    // The owner of a process's directory in /proc is its effective user.
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

fn default(root: bool, xdg: Option<OsString>, home: Option<OsString>) -> PathBuf {
    // The XDG specification has relative paths ignored.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    match (root, xdg, home) {
        (true, _, _) | (false, None, None) => SYSTEM_DIR.into(),
        (false, Some(xdg), _) => xdg.join("enishi"),
        (false, None, Some(home)) => PathBuf::from(home).join(".local/share/enishi"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_decides_the_default() {
        let some = |text: &str| Some(OsString::from(text));
        assert_eq!(
            default(true, some("/x"), some("/root")),
            PathBuf::from("/var/lib/enishi")
        );
        assert_eq!(
            default(false, some("/x"), some("/home/a")),
            PathBuf::from("/x/enishi")
        );
        assert_eq!(
            default(false, some("relative"), some("/home/a")),
            PathBuf::from("/home/a/.local/share/enishi")
        );
        assert_eq!(choose(Some("/named".into())), PathBuf::from("/named"));
    }
}
