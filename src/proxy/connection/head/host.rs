//! The `Host` of a request.

use std::cell::RefCell;

use crate::routing::{HostError, HostName};

thread_local! {
    /// The value that this worker has read last, and the name in it.
    static LAST: RefCell<(Vec<u8>, HostName)> =
        const { RefCell::new((Vec::new(), HostName::Start(0))) };
}

/// Finds the name in a value. Most values equal the one before, which is not read again.
///
/// # Errors
/// See [`HostName::read`].
pub(super) fn read(value: &[u8]) -> Result<HostName, HostError> {
    LAST.with_borrow_mut(|(last, name)| {
        if last != value || value.is_empty() {
            *name = HostName::read(value)?;
            last.clear();
            last.extend_from_slice(value);
        }
        Ok(name.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read_as_if_it_were_the_first() {
        for value in [
            "", "", "a", "a", "b:80", "b:x", "b:80", "A.b", "A.b", "a b", "", "a",
        ] {
            let value = value.as_bytes();
            assert_eq!(read(value), HostName::read(value), "{value:?}");
        }
    }
}
