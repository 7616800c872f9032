//! CPU time and memory of the program under test, read from `/proc` (Linux).
//!
//! CPU time is the scheduler's own count of nanoseconds per thread (`schedstat`), not the 10 ms ticks of
//! `stat`: at 50 µs per request ticks would need many seconds to say anything. Programs of several processes
//! (nginx, nghttpx) are measured whole: descendants of the given processes count too.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// Processes more than this in one tree are not followed: a load test watches a proxy, not a build.
const MAX_PROCESSES: usize = 256;

/// Watches processes and their descendants.
#[derive(Debug)]
pub(crate) struct Watch {
    proc_root: PathBuf,
    roots: Vec<u32>,
    threads: HashMap<(u32, u32), u64>,
    /// Time of thread numbers that were used again.
    retired_ns: u64,
    rss_peak_bytes: u64,
    pss_peak_bytes: u64,
}

/// How much one sample reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// CPU time and resident memory: microseconds of work.
    Light,
    /// Proportional memory too: the kernel walks the page tables, so once a second at most.
    Full,
}

impl Watch {
    /// Watches `pids`; takes the first sample.
    ///
    /// # Errors
    /// [`Error::Usage`] if one does not exist or cannot be read.
    pub(crate) fn new(pids: &[u32]) -> Result<Self, Error> {
        Self::under(Path::new("/proc"), pids)
    }

    /// Watches nothing: where there is no `/proc`.
    pub(crate) fn blind() -> Self {
        Self::of(Path::new("/proc"), &[])
    }

    fn under(proc_root: &Path, pids: &[u32]) -> Result<Self, Error> {
        for pid in pids {
            let tasks = proc_root.join(pid.to_string()).join("task");
            fs::read_dir(&tasks).map_err(|error| {
                Error::Usage(format!(
                    "--pid {pid}: cannot read {}: {error}; is it running, on Linux?",
                    tasks.display()
                ))
            })?;
        }
        let mut watch = Self::of(proc_root, pids);
        watch.sample(Depth::Light);
        Ok(watch)
    }

    fn of(proc_root: &Path, pids: &[u32]) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            roots: pids.to_vec(),
            threads: HashMap::new(),
            retired_ns: 0,
            rss_peak_bytes: 0,
            pss_peak_bytes: 0,
        }
    }

    /// Reads all processes. A process or thread that is gone keeps its last count: what it used since the
    /// sample before is missed, so samples should be frequent.
    pub(crate) fn sample(&mut self, depth: Depth) {
        let pids = self.family();
        for &pid in &pids {
            for thread in self.numbers(&format!("{pid}/task")) {
                let Some(now) = self.run_time(pid, thread) else { continue };
                let before = self.threads.insert((pid, thread), now).unwrap_or(0);
                if now < before {
                    self.retired_ns += before;
                }
            }
        }
        let sum = |file: &str, key: &str| {
            pids.iter().filter_map(|pid| self.kib(*pid, file, key)).sum::<u64>() << 10
        };
        let resident = sum("status", "VmRSS:");
        let proportional = if depth == Depth::Full { sum("smaps_rollup", "Pss:") } else { 0 };
        self.rss_peak_bytes = self.rss_peak_bytes.max(resident);
        self.pss_peak_bytes = self.pss_peak_bytes.max(proportional);
    }

    /// CPU time of all threads ever seen, nanoseconds; only differences mean something.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.retired_ns + self.threads.values().sum::<u64>()
    }

    /// Largest sum of `VmRSS` seen in one sample. Pages shared by two processes count twice.
    pub(crate) fn rss_peak_bytes(&self) -> u64 {
        self.rss_peak_bytes
    }

    /// Largest sum of `Pss` seen in a full sample; 0 if it cannot be read.
    pub(crate) fn pss_peak_bytes(&self) -> u64 {
        self.pss_peak_bytes
    }

    fn family(&self) -> Vec<u32> {
        let mut family = self.roots.clone();
        let mut next = 0;
        while next < family.len() && family.len() < MAX_PROCESSES {
            let pid = family[next];
            next += 1;
            for thread in self.numbers(&format!("{pid}/task")) {
                let Ok(children) = self.read(&format!("{pid}/task/{thread}/children")) else { continue };
                let new = children.split_whitespace().filter_map(|child| child.parse().ok());
                for child in new {
                    if !family.contains(&child) {
                        family.push(child);
                    }
                }
            }
        }
        family
    }

    fn run_time(&self, pid: u32, thread: u32) -> Option<u64> {
        let text = self.read(&format!("{pid}/task/{thread}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn kib(&self, pid: u32, file: &str, key: &str) -> Option<u64> {
        let text = self.read(&format!("{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn numbers(&self, folder: &str) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.proc_root.join(folder)) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.proc_root.join(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(root: &Path, pid: u32, tid: u32, run_ns: u64, children: &str) {
        let folder = root.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("schedstat"), format!("{run_ns} 5 9\n")).unwrap();
        fs::write(folder.join("children"), children).unwrap();
        fs::write(root.join(format!("{pid}/status")), "Name:\tx\nVmRSS:\t    100 kB\n").unwrap();
        fs::write(root.join(format!("{pid}/smaps_rollup")), "0-1 [rollup]\nPss:     60 kB\n").unwrap();
    }

    #[test]
    fn all_threads_of_all_descendants_count() {
        let root = tempfile::tempdir().unwrap();
        thread(root.path(), 10, 10, 1000, "20 ");
        thread(root.path(), 10, 11, 500, "");
        thread(root.path(), 20, 20, 70, "30");
        thread(root.path(), 30, 30, 7, "");
        thread(root.path(), 99, 99, 1_000_000, "");
        let mut watch = Watch::under(root.path(), &[10]).unwrap();
        assert_eq!(watch.cpu_ns(), 1577);
        watch.sample(Depth::Full);
        assert_eq!((watch.rss_peak_bytes(), watch.pss_peak_bytes()), (3 * 102_400, 3 * 61_440));
    }

    #[test]
    fn time_of_ended_threads_is_kept() {
        let root = tempfile::tempdir().unwrap();
        thread(root.path(), 10, 10, 1000, "");
        thread(root.path(), 10, 11, 500, "");
        let mut watch = Watch::under(root.path(), &[10]).unwrap();
        fs::remove_dir_all(root.path().join("10/task/11")).unwrap();
        thread(root.path(), 10, 10, 1200, "");
        watch.sample(Depth::Light);
        assert_eq!(watch.cpu_ns(), 1700);
        thread(root.path(), 10, 11, 30, "");
        watch.sample(Depth::Light);
        assert_eq!(watch.cpu_ns(), 1730, "a thread number used again starts from zero");
    }

    #[test]
    fn a_missing_process_is_wrong_usage() {
        let root = tempfile::tempdir().unwrap();
        let error = Watch::under(root.path(), &[4242]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--pid 4242"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_clock_of_this_process_advances_with_work() {
        let mut watch = Watch::new(&[std::process::id()]).unwrap();
        let before = watch.cpu_ns();
        let mut sum = 0_u64;
        while watch.cpu_ns() < before + 5_000_000 {
            sum = std::hint::black_box((0..100_000_u64).fold(sum, u64::wrapping_add));
            watch.sample(Depth::Light);
        }
        assert!(watch.rss_peak_bytes() > 0);
    }
}
