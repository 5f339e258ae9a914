//! CPU time, from the operating system's accounting.

/// Seconds that all threads of this process have run, user and system; 0 where the system does not tell.
pub fn process_cpu() -> f64 {
    seconds("/proc/self/stat").unwrap_or(0.0)
}

/// Nanoseconds that this process's thread of that name has run; None where there is none, or the system does not tell.
pub fn thread_cpu_ns(name: &str) -> Option<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let is_it = |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|c| c.trim() == name);
    let task = tasks.flatten().map(|task| task.path()).find(is_it)?;
    std::fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
}

fn seconds(path: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(path).ok()?;
    // The name in the second field may hold blanks: count from behind it.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux reports ticks of a hundredth of a second on every common platform.
    Some(ticks as f64 / 100.0)
}
