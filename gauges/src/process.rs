//! What the kernel says about this process, under the names that Prometheus clients use. Where there is no `/proc`,
//! nothing is said.

use std::fs;

use super::{describe, gauge, total};

/// Reads the figures into their gauges.
pub fn sample() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |field: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(field))?;
        line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()
    };
    let sizes = [
        ("process_resident_memory_bytes", "VmRSS:", "Memory of this process that is in RAM."),
        ("process_resident_memory_peak_bytes", "VmHWM:", "The most memory of this process that was in RAM."),
        ("process_virtual_memory_bytes", "VmSize:", "Address space of this process."),
    ];
    for (name, field, help) in sizes {
        if let Some(n) = kib(field) {
            describe(name, help);
            gauge(name, &[]).set(n * 1024.0);
        }
    }
    if let Some(n) = status.lines().find_map(|l| l.strip_prefix("Threads:")?.trim().parse::<f64>().ok()) {
        describe("process_threads", "Threads of this process.");
        gauge("process_threads", &[]).set(n);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        describe("process_open_fds", "Open file descriptors of this process.");
        gauge("process_open_fds", &[]).set(open.count() as f64);
    }
    times();
}

/// Ticks a second in `/proc`: fixed at 100 by Linux towards programs.
const TICKS: f64 = 100.0;

/// Processor time and start, from the fields after the name (which may hold blanks and parentheses).
fn times() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok());
    // Fields 14, 15 and 22 of proc(5); the first here is field 3.
    if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
        describe("process_cpu_seconds_total", "Processor time of this process.");
        total("process_cpu_seconds_total", &[]).set((user + system) / TICKS);
    }
    let kernel = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = kernel.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    if let (Some(booted), Some(started)) = (booted, ticks(19)) {
        describe("process_start_time_seconds", "When this process was started, in Unix time.");
        gauge("process_start_time_seconds", &[]).set(booted + started / TICKS);
    }
}
