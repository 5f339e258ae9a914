//! CPU time, from the operating system's accounting.

/// Seconds that all threads of this process have run, user and system; 0 where the system does not tell.
pub fn process_cpu() -> f64 {
    seconds("/proc/self/stat").unwrap_or(0.0)
}

fn seconds(path: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(path).ok()?;
    // The name in the second field may hold blanks: count from behind it.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux reports ticks of a hundredth of a second on every common platform.
    Some(ticks as f64 / 100.0)
}
