//! Connection on which the commands of all callers are pipelined.
//!
//! The commands of one turn of the event loop go out in one write, and replies are matched in order.

mod driver;
mod request_queue;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use driver::Driver;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use request_queue::{Replies, RequestQueue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// A connection, shared by its callers; it ends when it is dropped.
pub(in crate::store::redis) struct PipelinedConnection {
    shared: Arc<SharedQueue>,
    driver: AbortHandle,
}

/// The queue, as the callers and the driver share it.
#[derive(Default)]
struct SharedQueue {
    state: Mutex<State>,
    /// Notified when a full queue has room again.
    has_room: Notify,
}

#[derive(Default)]
struct State {
    queue: RequestQueue,
    /// Present while the driver waits for commands.
    driver: Option<Waker>,
    /// Why the connection has ended.
    error: Option<RedisError>,
}

/// The replies to a queued request.
struct PendingReplies<'c> {
    shared: &'c SharedQueue,
    /// Absent once the replies have been taken.
    request: Option<usize>,
}

impl PipelinedConnection {
    /// Spawns the driver of an authenticated connection, RESP2, on the current Tokio runtime.
    pub(in crate::store::redis) fn spawn<S>(stream: S) -> PipelinedConnection
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::<SharedQueue>::default();
        let driver = Driver::new(stream, Arc::clone(&shared));
        let driver = tokio::spawn(driver).abort_handle();
        PipelinedConnection { shared, driver }
    }

    /// Executes a command.
    pub(in crate::store::redis) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let pack = |packed: &mut Vec<u8>| command.write_packed_command(packed);
        let mut replies = self.request(1, pack).await?;
        replies.pop().ok_or_else(closed)?.extract_error()
    }

    /// Executes several commands; server errors are among the replies.
    pub(in crate::store::redis) async fn send_all(
        &self,
        commands: &Pipeline,
    ) -> RedisResult<Vec<Value>> {
        let pack = |packed: &mut Vec<u8>| {
            for command in commands.cmd_iter() {
                command.write_packed_command(packed);
            }
        };
        match commands.len() {
            0 => Ok(Vec::new()),
            count => Ok(self.request(count, pack).await?.into_vec()),
        }
    }

    async fn request(&self, count: usize, pack: impl Fn(&mut Vec<u8>)) -> RedisResult<Replies> {
        loop {
            if let Some(pending) = self.shared.submit(count, &pack)? {
                return pending.await;
            }
            // Boxed: rare, and this future is part of every request's.
            Box::pin(self.shared.wait_for_room()).await;
        }
    }
}

impl Drop for PipelinedConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl SharedQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request; `None`: the queue is full.
    fn submit(
        &self,
        count: usize,
        pack: impl Fn(&mut Vec<u8>),
    ) -> RedisResult<Option<PendingReplies<'_>>> {
        let mut state = self.state();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        if state.queue.is_full() {
            return Ok(None);
        }
        let request = state.queue.push(count, pack);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(Some(PendingReplies {
            shared: self,
            request: Some(request),
        }))
    }

    async fn wait_for_room(&self) {
        // Created before the check, so that no notification is missed.
        let notified = self.has_room.notified();
        if self.state().queue.is_full() {
            notified.await;
        }
    }

    /// Ends the connection: requests without all of their replies fail, as does each further one.
    fn end(&self, error: RedisError) {
        let mut state = self.state();
        state.error.get_or_insert(error);
        let callers = state.queue.close();
        drop(state);
        callers.into_iter().for_each(Waker::wake);
        self.has_room.notify_waiters();
    }
}

impl Future for PendingReplies<'_> {
    type Output = RedisResult<Replies>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(request) = self.request else {
            return Poll::Ready(Err(closed()));
        };
        let mut state = self.shared.state();
        if let Some(replies) = state.queue.take(request) {
            drop(state);
            self.request = None;
            return Poll::Ready(Ok(replies));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        state.queue.set_waker(request, context.waker());
        Poll::Pending
    }
}

impl Drop for PendingReplies<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.shared.state().queue.abandon(request);
        }
    }
}

/// The error of a connection that has ended without another one.
fn closed() -> RedisError {
    io::Error::from(io::ErrorKind::BrokenPipe).into()
}

#[cfg(test)]
mod tests;
