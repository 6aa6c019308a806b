//! What the process takes, under the names that every Prometheus client gives it (`process_*`), from /proc.
//!
//! The crate that the registry's own collector reads /proc with knows all of it, and takes a tenth of a first build.

use prometheus::core::{Collector, Desc};
use prometheus::{Counter, Gauge, Opts, proto};

/// `/proc/PID/stat` counts in hundredths of a second on every architecture that Rust's standard library knows.
const TICKS_PER_SECOND: f64 = 100.0;
const BYTES_PER_KIB: f64 = 1_024.0;

/// What is read at one scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    /// From the start of the machine on.
    started_seconds: f64,
    threads: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
}

pub(super) struct Process {
    cpu: Counter,
    started: Gauge,
    threads: Gauge,
    resident: Gauge,
    virtual_memory: Gauge,
    open_files: Gauge,
    most_files: Gauge,
}

impl Process {
    pub(super) fn new() -> prometheus::Result<Process> {
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help));
        Ok(Process {
            cpu: Counter::with_opts(Opts::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            ))?,
            started: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
            threads: gauge("process_threads", "Number of OS threads in the process.")?,
            resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            open_files: gauge("process_open_fds", "Number of open file descriptors.")?,
            most_files: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
        })
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu,
            &self.open_files,
            &self.most_files,
            &self.virtual_memory,
            &self.resident,
            &self.started,
            &self.threads,
        ]
    }

    /// Where a file cannot be read, what it would tell stays as it was.
    fn look(&self) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(figures) = figures(&read("/proc/self/stat"), &read("/proc/self/status")) {
            // Two scrapes may look at once, and the one that looked first come second.
            self.cpu.inc_by((figures.cpu_seconds - self.cpu.get()).max(0.0));
            self.threads.set(figures.threads);
            self.resident.set(figures.resident_bytes);
            self.virtual_memory.set(figures.virtual_bytes);
            if let Some(booted) = booted(&read("/proc/stat")) {
                self.started.set(booted + figures.started_seconds);
            }
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the folder that is being read.
            self.open_files.set(open.count().saturating_sub(1) as f64);
        }
        if let Some(most) = most_files(&read("/proc/self/limits")) {
            self.most_files.set(most);
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        self.look();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

fn figures(stat: &str, status: &str) -> Option<Figures> {
    // The second field is a name in brackets, which may itself hold blanks and brackets.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // proc(5) counts fields from 1, and the third is the first after the name.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    };
    Some(Figures {
        cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
        threads: field(20)?,
        started_seconds: field(22)? / TICKS_PER_SECOND,
        resident_bytes: kib("VmRSS")? * BYTES_PER_KIB,
        virtual_bytes: kib("VmSize")? * BYTES_PER_KIB,
    })
}

/// When the machine was started.
fn booted(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// How many files may be open; nothing where there is no limit.
fn most_files(limits: &str) -> Option<f64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    soft.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_writes_is_read_whatever_the_process_is_called() {
        let stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194304 1 2 3 4 250 50 7 8 20 0 12 0 99001 123 456 1";
        let status = "Name:\ta) b (c\nVmSize:\t  2048 kB\nVmRSS:\t    1024 kB\nThreads:\t12\n";
        let expected = Figures {
            cpu_seconds: 3.0,
            started_seconds: 990.01,
            threads: 12.0,
            resident_bytes: 1_048_576.0,
            virtual_bytes: 2_097_152.0,
        };
        assert_eq!(figures(stat, status), Some(expected));
        assert_eq!(figures("", status), None);
        assert_eq!(figures(stat, ""), None);
        assert_eq!(booted("cpu  1 2 3\nbtime 1790000000\nprocesses 5\n"), Some(1_790_000_000.0));
        let limits = "Limit   Soft Limit   Hard Limit   Units\nMax open files            1024                 524288   files\n";
        assert_eq!(most_files(limits), Some(1_024.0));
        assert_eq!(most_files("Max open files            unlimited            unlimited   files\n"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let process = Process::new().unwrap();
        process.look();
        let mapped = process.virtual_memory.get();
        assert!(process.resident.get() > 1e6 && mapped > process.resident.get(), "{mapped}");
        assert!(process.threads.get() >= 1.0 && process.open_files.get() >= 3.0);
        // Of 2020: a clock that is set at all.
        assert!(process.started.get() > 1_577_836_800.0, "{}", process.started.get());
        assert_eq!(process.collect().len(), process.desc().len());
    }
}
