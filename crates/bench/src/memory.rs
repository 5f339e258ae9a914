//! Memory that the machine has, and a host may still have to give.
//!
//! In a virtual machine the first touch of memory that the host has not given yet (or has taken back, once it was free for
//! some seconds) costs fifty times as much as clearing it does: 0.5 GB/s beside 24 on the machine of the results. What
//! keeps much memory would be measured by that. So a benchmark of such things has memory touched before, by a process
//! that ends.

use std::error::Error;
use std::process::Command;

const GIGABYTE: usize = 1 << 30;
const PAGE: usize = 4096;

/// `tidewire-bench memory [GIGABYTES]`: touches so much, and ends.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let n_bytes = args.first().map_or(Ok(4), |n| n.parse::<usize>())? * GIGABYTE;
    let mut bytes = vec![0u8; n_bytes];
    bytes.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(bytes);
    Ok(())
}

/// Has so much memory touched by another process.
pub fn touch(n_gigabytes: usize) -> Result<(), Box<dyn Error>> {
    Command::new(std::env::current_exe()?).args(["memory", &n_gigabytes.to_string()]).status()?;
    Ok(())
}
