//! What is asked of a disk, and what came out.

use std::time::Duration;

use crate::guests::Report;

/// Transfers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Writes instead of reads.
    pub write: bool,
    /// One block after the other instead of any.
    pub sequential: bool,
    /// Bytes of a transfer.
    pub block: u32,
    /// Transfers under way at a time.
    pub depth: u32,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Transfers a second.
    pub per_second: f64,
    /// Median latency, in nanoseconds.
    pub p50_ns: f64,
    /// 99th percentile of the latencies, in nanoseconds.
    pub p99_ns: f64,
    /// How many transfers there were.
    pub count: f64,
}

/// What is measured: small and random, alone and many at once; large and in order.
pub const LOADS: [Load; 6] = [
    Load { write: false, sequential: false, block: 4 << 10, depth: 1 },
    Load { write: false, sequential: false, block: 4 << 10, depth: 32 },
    Load { write: true, sequential: false, block: 4 << 10, depth: 1 },
    Load { write: true, sequential: false, block: 4 << 10, depth: 32 },
    Load { write: false, sequential: true, block: 1 << 20, depth: 4 },
    Load { write: true, sequential: true, block: 1 << 20, depth: 4 },
];

impl Load {
    /// What it is, for people.
    pub fn name(self) -> String {
        let order = if self.sequential { "sequential" } else { "random" };
        let direction = if self.write { "write" } else { "read" };
        format!("{} {order} {direction}, depth {}", self.block_name(), self.depth)
    }

    /// The guest's workload.
    pub fn workload(self, seconds: usize) -> String {
        let order = if self.sequential { "seq-" } else { "" };
        let direction = if self.write { "write" } else { "read" };
        format!("blk-{order}{direction}:{}K,{},{seconds}", self.block >> 10, self.depth)
    }

    fn block_name(self) -> String {
        match self.block >> 10 {
            kib if kib >= 1024 => format!("{} MiB", kib >> 10),
            kib => format!("{kib} KiB"),
        }
    }
}

impl Outcome {
    /// From the latencies of all transfers, in nanoseconds.
    pub fn of(mut latencies: Vec<u64>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        let percentile = |percent: usize| {
            let index = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(index).copied().unwrap_or(0) as f64
        };
        let per_second = latencies.len() as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        Self { per_second, p50_ns: percentile(50), p99_ns: percentile(99), count: latencies.len() as f64 }
    }

    /// From what a guest reports of a whole phase.
    pub fn reported(report: &Report<'_>) -> Self {
        Self {
            per_second: report.operations_per_second as f64,
            p50_ns: report.p50_ns as f64,
            p99_ns: report.p99_ns as f64,
            count: report.operations as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_have_names_and_workloads() {
        for (load, name, workload) in [
            (LOADS[1], "4 KiB random read, depth 32", "blk-read:4K,32,2"),
            (LOADS[2], "4 KiB random write, depth 1", "blk-write:4K,1,2"),
            (LOADS[5], "1 MiB sequential write, depth 4", "blk-seq-write:1024K,4,2"),
        ] {
            assert_eq!((load.name(), load.workload(2)), (name.to_owned(), workload.to_owned()));
        }
    }

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let outcome = Outcome::of((1..=100).rev().collect(), Duration::from_secs(2));
        assert_eq!(outcome, Outcome { per_second: 50.0, p50_ns: 50.0, p99_ns: 99.0, count: 100.0 });
        assert_eq!(Outcome::of(vec![], Duration::ZERO).per_second, 0.0);
    }
}
