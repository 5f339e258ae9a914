//! What this process uses: resident memory and CPU time, as the operating system counts them.

use std::fs;

/// Resident bytes and CPU seconds; None where the system has no `/proc`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUse {
    /// Bytes of memory that are resident.
    pub resident_bytes: u64,
    /// CPU time of all threads, user and system, in seconds.
    pub cpu_seconds: f64,
}

/// The kernel reports CPU time to programs in hundredths of a second on every Linux platform (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

impl ProcessUse {
    /// Of this process, now.
    pub fn now() -> Option<ProcessUse> {
        Some(ProcessUse {
            resident_bytes: resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)?,
            cpu_seconds: cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)?,
        })
    }
}

/// From `/proc/self/status`, whose line is `VmRSS:    1234 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// From `/proc/self/stat`: fields 14 and 15, counted behind the program's name, which may hold blanks.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t  2048 kB\n"), Some(2048 * 1024));
        let stat = "7 (a) b) R 1 1 1 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("VmRSS: much"), None);
        assert_eq!(cpu_seconds("7 (a"), None);
    }
}
