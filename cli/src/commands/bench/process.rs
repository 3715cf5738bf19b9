//! What processes cost: CPU time and memory from `/proc`. Knows no watershed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

/// CPU time and private memory of some processes together, since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub cpu: Duration,
    /// Resident memory that is not shared, in bytes: shared buffers count for nobody.
    pub private: u64,
}

/// One line of `/proc/PID/stat`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
    /// Of children that ended and were waited for: a server's finished sessions.
    reaped: u64,
}

/// Ticks a second of `/proc`'s clock; Linux shows 100 to programs whatever the kernel's own.
const TICKS: u64 = 100;

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold anything, so count from its end.
    let rest = text.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)?,
        reaped: number(13)? + number(14)?,
    })
}

fn private_bytes(pid: u32) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

/// The most resident memory a process has held, in bytes.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// What a process did between two looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    pub cpu: Duration,
    /// Times its threads gave up the processor to wait for something.
    pub waits: u64,
    /// Times the processor was taken from them.
    pub preempted: u64,
}

/// What a process has done since it began, thread by thread: the switches of a thread go with it, so a sum over all of them may fall.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    cpu: Duration,
    /// Waits and preemptions of the threads that are there, by their ids.
    threads: HashMap<OsString, (u64, u64)>,
}

impl Look {
    /// `None` if there is no such process.
    pub fn at(pid: u32) -> Option<Look> {
        let stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // One that ended meanwhile has nothing to tell.
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
            threads.insert(thread.file_name(), switches(&status));
        }
        Some(Look { cpu: ticks_to_time(stat.ticks), threads })
    }

    /// Without the switches of threads that ended between the two.
    pub fn since(&self, before: &Look) -> Effort {
        let mut effort = Effort { cpu: self.cpu.saturating_sub(before.cpu), ..Effort::default() };
        for (thread, (waits, preempted)) in &self.threads {
            let (waited, lost) = before.threads.get(thread).copied().unwrap_or_default();
            effort.waits += waits.saturating_sub(waited);
            effort.preempted += preempted.saturating_sub(lost);
        }
        effort
    }
}

/// Voluntary and other context switches, of `/proc/PID/task/TID/status`.
fn switches(status: &str) -> (u64, u64) {
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or_default()
    };
    (value("voluntary_ctxt_switches:"), value("nonvoluntary_ctxt_switches:"))
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Resident memory that is not shared, in bytes.
    pub memory: u64,
    /// Open file descriptors.
    pub files: u64,
}

/// What a process holds now; nothing, if it is gone.
pub fn in_use(pid: u32) -> Use {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
    Use { memory: private_bytes(pid), files }
}

/// Everything that runs now, by pid.
pub struct Processes(HashMap<u32, Stat>);

impl Processes {
    pub fn now() -> Processes {
        let mut all = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(stat) = fs::read_to_string(entry.path().join("stat")).ok().and_then(|t| parse_stat(&t)) {
                all.insert(pid, stat);
            }
        }
        Processes(all)
    }

    /// One process by itself.
    pub fn alone(&self, pid: u32) -> Cost {
        let ticks = self.0.get(&pid).map_or(0, |stat| stat.ticks);
        Cost { cpu: ticks_to_time(ticks), private: private_bytes(pid) }
    }

    /// A process with its children, those that ended included.
    pub fn family(&self, pid: u32) -> Cost {
        let mut cost = Cost::default();
        let mut ticks = 0;
        for (member, stat) in &self.0 {
            if *member == pid || stat.parent == pid {
                ticks += stat.ticks;
                cost.private += private_bytes(*member);
            }
            if *member == pid {
                ticks += stat.reaped;
            }
        }
        cost.cpu = ticks_to_time(ticks);
        cost
    }

    /// Pids of processes one of whose arguments is `word`.
    pub fn with_argument(&self, word: &str) -> Vec<u32> {
        let has = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|b| *b == 0).any(|argument| argument == word.as_bytes()))
        };
        self.0.keys().copied().filter(has).collect()
    }
}

fn ticks_to_time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_passed_over() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 1 0 100 1 1";
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, ticks: 200, reaped: 50 }));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn switches_of_either_kind() {
        let status = "Threads:\t3\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(switches(status), (150, 545));
        assert_eq!(switches(""), (0, 0));
    }

    #[test]
    fn a_look_tells_what_was_done_since_another() {
        let me = std::process::id();
        let before = Look::at(me).expect("this process");
        std::thread::sleep(Duration::from_millis(1));
        let since = Look::at(me).expect("this process").since(&before);
        assert!(since.waits >= 1, "{since:?}");
        assert_eq!(Look::at(u32::MAX), None);
    }

    #[test]
    fn threads_that_came_and_went_hide_nothing() {
        let look = |ms, threads: &[(&str, u64, u64)]| Look {
            cpu: Duration::from_millis(ms),
            threads: threads.iter().map(|(id, waits, preempted)| ((*id).into(), (*waits, *preempted))).collect(),
        };
        let since = look(70, &[("1", 12, 3), ("3", 4, 1)]).since(&look(50, &[("1", 10, 3), ("2", 1_000, 1_000)]));
        assert_eq!(since, Effort { cpu: Duration::from_millis(20), waits: 6, preempted: 1 });
    }

    #[test]
    fn this_process_is_among_them() {
        let me = std::process::id();
        let all = Processes::now();
        assert!(all.0.contains_key(&me));
        assert!(all.alone(me).private > 0);
        assert!(in_use(me).memory > 0 && in_use(me).files > 0);
    }
}
