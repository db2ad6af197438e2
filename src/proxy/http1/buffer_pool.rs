//! Buffers of a worker: pooled ones for what is kept, and one for what is being read, so that an idle
//! connection holds none.

use std::cell::RefCell;

/// Number of buffers that a worker keeps.
const MAX_KEPT: usize = 256;
/// A larger buffer is freed instead.
const MAX_CAPACITY: usize = 64 * 1024;
const INITIAL_CAPACITY: usize = 2 * 1024;
/// Size of the shared read buffer.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Takes an empty buffer.
pub fn take() -> Vec<u8> {
    let pooled = FREE.with_borrow_mut(Vec::pop);
    pooled.unwrap_or_else(|| Vec::with_capacity(INITIAL_CAPACITY))
}

/// Returns a buffer to the pool.
pub fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() < INITIAL_CAPACITY || buffer.capacity() > MAX_CAPACITY {
        return;
    }
    buffer.clear();
    FREE.with_borrow_mut(|free| {
        if free.len() < MAX_KEPT {
            free.push(buffer);
        }
    });
}

/// Lends the shared read buffer. `read` must not borrow it again.
pub fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SHARED.with_borrow_mut(|scratch| read(scratch))
}

/// The number of buffers that the worker has and that are not taken.
#[cfg(test)]
pub fn free_buffers() -> usize {
    FREE.with_borrow(Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returned_buffer_is_taken_again_empty() {
        let mut buffer = take();
        buffer.extend_from_slice(b"secret");
        let address = buffer.as_ptr();
        give(buffer);
        let again = take();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    #[test]
    fn pool_keeps_a_bounded_number_of_bounded_buffers() {
        for _ in 0..2 * MAX_KEPT {
            give(Vec::with_capacity(INITIAL_CAPACITY));
        }
        give(Vec::with_capacity(2 * MAX_CAPACITY));
        give(Vec::new());
        assert_eq!(FREE.with_borrow(Vec::len), MAX_KEPT);
        assert!(take().capacity() <= MAX_CAPACITY);
    }
}
