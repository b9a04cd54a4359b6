//! What the system tells of this process and its devices. Linux: `/proc` and `/sys`.
//! Elsewhere, or where they are not mounted, nothing is known.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// The clock ticks of `/proc/self/stat` in a second (`USER_HZ`, proc(5)); 100 on all
/// architectures that matter.
const TICKS_PER_SECOND: u64 = 100;

/// Where a device takes part in the network (`IFF_UP`, netdevice(7)).
const FLAG_UP: u32 = 1;

/// The file that a check writes in the data directory.
const PROBE_NAME: &str = "doctor.tmp";

/// Returns the processor time that this process has used, on all cores.
pub(super) fn processor_time() -> Option<Duration> {
    of_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Reads the user and system time (fields 14 and 15 of proc_pid_stat(5)). The second
/// field is the program's name in parentheses, which may hold anything.
fn of_stat(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = ticks(11)? + ticks(12)?;
    Some(Duration::from_millis(ticks * (1000 / TICKS_PER_SECOND)))
}

/// Returns how many files and sockets this process has open, and how many it may have.
pub(super) fn open_files() -> Option<(u64, u64)> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    // Without the one that reads the directory.
    Some((open.saturating_sub(1), of_limits(&limits)?))
}

fn of_limits(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Tells whether a network device is up; none when there is no such device.
pub(super) fn is_up(device: &str) -> Option<bool> {
    let flags = fs::read_to_string(format!("/sys/class/net/{device}/flags")).ok()?;
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok()?;
    Some(flags & FLAG_UP != 0)
}

/// Writes a small file to a directory, has it put on disk, and removes it.
pub(super) fn try_writing(directory: &Path) -> io::Result<()> {
    let path = directory.join(PROBE_NAME);
    let mut file = fs::File::create(&path)?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    drop(file);
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Returns how many octets are free for this user where a directory is.
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(directory).ok()?;
    Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(of_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(of_stat("7 (a) S 1"), None);
        assert!(processor_time().is_some());
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(of_limits(limits), Some(1024));
        let (open, limit) = open_files().unwrap();
        assert!(0 < open && open < limit);
    }

    #[test]
    fn a_directory_is_tried_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        try_writing(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(try_writing(&directory.path().join("missing")).is_err());
        assert!(free_bytes(directory.path()).unwrap() > 0);
        assert_eq!(
            (is_up("no such device"), is_up("lo").is_some()),
            (None, true)
        );
    }
}
