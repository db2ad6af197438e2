//! What this process may remember: a share of the memory of its machine, or of its container.

/// A share of memory, with bounds, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemoryBudget {
    /// One part of so many.
    pub divisor: u64,
    pub min: u64,
    pub max: u64,
}

/// Bytes in a MiB.
pub const MIB: u64 = 1024 * 1024;

impl MemoryBudget {
    /// Bytes, of the memory that there is; the least where nobody knows how much that is.
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

/// The machine's memory.
fn machine_memory(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The container's limit; without one there is the word `max`.
fn cgroup_limit(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_scales_with_memory_within_bounds() {
        let share = MemoryBudget {
            divisor: 4,
            min: 16 * MIB,
            max: 1024 * MIB,
        };
        for (memory, bytes) in [
            (None, 16),
            (Some(32), 16),
            (Some(256), 64),
            (Some(64 * 1024), 1024),
        ] {
            assert_eq!(share.of_total(memory.map(|mib| mib * MIB)), bytes * MIB);
        }
    }
}
