//! How much memory there is, for a server that is not told.

use std::fs;

/// Of the memory that there is, what state may take: the rest is for what moves.
const PART: f64 = 0.8;

/// Bytes that state may take: most of what the cgroup of the process may use, or of what the machine has.
pub fn default_limit() -> Option<usize> {
    let limits = [machine_bytes(), cgroup_bytes("memory", "memory.limit_in_bytes"), cgroup_bytes("", "memory.max")];
    let least = limits.into_iter().flatten().min()?;
    Some((least as f64 * PART) as usize)
}

fn machine_bytes() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}

/// The least limit from the process's cgroup up to the root, of one hierarchy: `memory` of version 1, or version 2's.
fn cgroup_bytes(controller: &str, file: &str) -> Option<usize> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|c| c == controller).then_some(path)
    })?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let root = format!("/sys/fs/cgroup/{controller}");
    let limit = |n_parts: usize| {
        let folder = parts.get(..n_parts)?.join("/");
        fs::read_to_string(format!("{root}/{folder}/{file}")).ok()?.trim().parse::<usize>().ok()
    };
    (0..=parts.len()).filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_limit_below_what_the_machine_has() {
        let limit = default_limit().expect("a machine with memory");
        assert!(limit > 1 << 20 && limit < machine_bytes().expect("a machine with memory"), "{limit}");
    }
}
