//! Whether the resolver's file is one for this process's network. In a network namespace, as
//! `ip netns exec` enters one, files are those of the system unless others are mounted upon
//! them; and a server in this network is none for the programs of another.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// This process's network.
const OWN_NETWORK: &str = "/proc/self/ns/net";

/// The network of the first process, which is the system's; not everybody may look at it.
const FIRST_NETWORK: &str = "/proc/1/ns/net";

/// The networks that `ip netns` has made.
const NAMED_NETWORKS: &str = "/run/netns";

/// Tells whether this process is in another network than the system's: a resolver that runs
/// in the system's does not see its devices.
pub(super) fn is_elsewhere() -> bool {
    let own = identity(Path::new(OWN_NETWORK));
    match identity(Path::new(FIRST_NETWORK)) {
        Some(first) => own != Some(first),
        None => {
            let named = fs::read_dir(NAMED_NETWORKS).into_iter().flatten().flatten();
            let mut named = named.filter_map(|entry| identity(&entry.path()));
            named.any(|named| own == Some(named))
        }
    }
}

/// Tells whether a file is not the one that the first process sees under this path.
pub(super) fn has_own_file(path: &Path) -> bool {
    let Some(relative) = path.to_str().map(|path| path.trim_start_matches('/')) else {
        return false;
    };
    let firsts = identity(&Path::new("/proc/1/root").join(relative));
    match firsts {
        Some(first) => identity(path) != Some(first),
        None => is_mounted(path),
    }
}

/// Tells whether something is mounted upon a path (proc_pid_mountinfo(5)).
fn is_mounted(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| Path::new(point) == path)
}

/// What makes two paths lead to the same file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_known() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self/status")));
    }
}
