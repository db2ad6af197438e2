//! What this process may remember: a share of the memory of its machine, or of its container.

/// A share of memory, with bounds, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// One part of so many.
    pub part: u64,
    pub least: u64,
    pub most: u64,
}

/// Bytes in a MiB.
pub const MIB: u64 = 1024 * 1024;

impl Share {
    /// Bytes, of the memory that there is; the least where nobody knows how much that is.
    pub fn bytes(self) -> u64 {
        let available = [
            machine("/proc/meminfo"),
            limit("/sys/fs/cgroup/memory.max"),
            limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        ];
        self.of(available.into_iter().flatten().min())
    }

    fn of(self, memory: Option<u64>) -> u64 {
        memory.map_or(self.least, |bytes| {
            (bytes / self.part).clamp(self.least, self.most)
        })
    }
}

/// The machine's memory.
fn machine(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The container's limit; without one there is the word `max`.
fn limit(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_with_the_memory_between_its_bounds() {
        let share = Share {
            part: 4,
            least: 16 * MIB,
            most: 1024 * MIB,
        };
        for (memory, bytes) in [
            (None, 16),
            (Some(32), 16),
            (Some(256), 64),
            (Some(64 * 1024), 1024),
        ] {
            assert_eq!(share.of(memory.map(|mib| mib * MIB)), bytes * MIB);
        }
    }
}
