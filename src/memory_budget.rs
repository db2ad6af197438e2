//! Memory budgets: a share of the machine's or container's memory, with bounds.

/// A share of memory, with bounds, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemoryBudget {
    /// The share is the total divided by this number.
    pub divisor: u64,
    pub min: u64,
    pub max: u64,
}

/// Bytes in a MiB.
pub const MIB: u64 = 1024 * 1024;

impl MemoryBudget {
    /// Returns the budget in bytes; the minimum if the total memory is unknown.
    pub fn bytes(self) -> u64 {
        let available = [
            machine_memory("/proc/meminfo"),
            cgroup_limit("/sys/fs/cgroup/memory.max"),
            cgroup_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        ];
        self.of_total(available.into_iter().flatten().min())
    }

    fn of_total(self, memory: Option<u64>) -> u64 {
        memory.map_or(self.min, |bytes| {
            (bytes / self.divisor).clamp(self.min, self.max)
        })
    }
}

/// Reads the machine's memory from `/proc/meminfo`.
fn machine_memory(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Reads the container's limit; without one, cgroup v2 reports `max`.
fn cgroup_limit(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_scales_with_memory_within_bounds() {
        let budget = MemoryBudget {
            divisor: 4,
            min: 16 * MIB,
            max: 1024 * MIB,
        };
        for (total, expected) in [
            (None, 16),
            (Some(32), 16),
            (Some(256), 64),
            (Some(64 * 1024), 1024),
        ] {
            assert_eq!(budget.of_total(total.map(|mib| mib * MIB)), expected * MIB);
        }
    }
}
