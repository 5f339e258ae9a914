//! CPU time, from the operating system's accounting.

use std::path::PathBuf;

/// Seconds that all threads of this process have run, user and system; 0 where the system does not tell.
pub fn process_cpu() -> f64 {
    seconds("/proc/self/stat").unwrap_or(0.0)
}

/// Nanoseconds that those threads of this process have run whose names `is_it` knows; 0 where the system does not tell.
pub fn threads_cpu_ns(is_it: impl Fn(&str) -> bool) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path());
    let named = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| is_it(name.trim()));
    let ran = |task: PathBuf| {
        let stat = std::fs::read_to_string(task.join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter(named).filter_map(ran).sum()
}

fn seconds(path: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(path).ok()?;
    // The name in the second field may hold blanks: count from behind it.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux reports ticks of a hundredth of a second on every common platform.
    Some(ticks as f64 / 100.0)
}
