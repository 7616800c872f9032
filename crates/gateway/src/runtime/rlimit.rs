//! File descriptors: as many as the system lets us have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard limit. Returns the limit in force; `None` means unlimited.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = ?limit.current, "the limit on open files cannot be raised");
            limit.current
        }
    }
}

/// Descriptors that callers may not take: connections to providers, listeners, logs, the runtime's own.
const RESERVED: u64 = 256;

/// How many callers may be connected: `wanted`, or fewer where the limit on open files leaves no room for the
/// connections to providers beside them.
#[must_use]
pub fn room_for_callers(wanted: usize) -> usize {
    room(wanted, getrlimit(Resource::Nofile).current)
}

fn room(wanted: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return wanted };
    let reserved = RESERVED.min(descriptors / 2);
    wanted.min(usize::try_from(descriptors - reserved).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_leave_descriptors_for_providers() {
        assert_eq!(room(10_000, None), 10_000);
        assert_eq!(room(10_000, Some(20_000)), 10_000);
        assert_eq!(room(10_000, Some(1024)), 768);
        assert_eq!(room(10_000, Some(60)), 30);
    }
}
