//! What remembered sessions may take of this machine's memory.

use crate::session::Session;

/// At most this many bytes: more than a million sessions.
const MOST: u64 = 1024 * 1024 * 1024;
/// At least this many.
const LEAST: u64 = 16 * 1024 * 1024;
/// One part of so many of what the machine, or the container, has.
const SHARE: u64 = 4;

/// Bytes that remembered sessions may take, roughly.
pub(super) fn budget() -> u64 {
    let available = [
        machine("/proc/meminfo"),
        limit("/sys/fs/cgroup/memory.max"),
        limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ];
    let least = available.into_iter().flatten().min();
    least.map_or(LEAST, |bytes| (bytes / SHARE).clamp(LEAST, MOST))
}

/// What a session takes here, roughly: itself, its own texts, and its place. Those that are shared count
/// with each, for nobody knows with how many.
pub(super) fn weight(session: &Session) -> u64 {
    let device = [&session.device.kind, &session.device.name];
    let names = session.roles.iter().chain(&*session.scopes);
    let texts = session.user.len()
        + session.email.len()
        + session.name.as_ref().map_or(0, String::len)
        + session.user_agent.len()
        + device
            .into_iter()
            .flatten()
            .map(|it| it.len())
            .sum::<usize>()
        + session.data.len()
        + names
            .map(|name| name.len() + size_of::<String>())
            .sum::<usize>();
    let own = size_of::<Session>() + size_of::<super::Seen>();
    // The rest is what the allocator and the cache need for each.
    (texts + own + 150) as u64
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
