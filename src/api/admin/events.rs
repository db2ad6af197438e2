//! Security events: paged listing and live stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http::{HeaderMap, Uri};
use serde_json::json;

use super::super::query::QueryParams;
use super::super::response;
use super::AdminState;
use crate::events::{Events, RecordedEvent};
use crate::rejection::Rejection;
use crate::store::{Position, StoreError};

/// Interval at which a stream polls for new events.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Interval of the comments that keep an idle stream open.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Events read per poll.
const BATCH: usize = 100;

/// `GET /admin/events?event=&limit=&cursor=`: the fleet's latest events, newest first. With
/// `follow=true`, a server-sent event stream of new events, or of those since `Last-Event-ID`.
pub(super) async fn events(
    State(state): State<AdminState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let mut query = QueryParams::parse(&uri);
    let limit = query.limit() as usize;
    let cursor = query.cursor(|text| is_event_id(text).then(|| text.to_owned()));
    let kind = query.text("event");
    let follow = query.parse_param("follow", "must be true or false", |text| text.parse().ok());
    query.check()?;
    if follow == Some(true) {
        let seen = headers.get("last-event-id");
        let seen = seen
            .and_then(|id| id.to_str().ok())
            .filter(|id| is_event_id(id));
        return Ok(follow_response(state.events, kind, seen).await?);
    }
    let page = state
        .events
        .page(kind.as_deref(), cursor.as_deref(), limit)
        .await?;
    Ok(response::data(
        &json!({"events": page.events, "next_cursor": page.next_cursor}),
    ))
}

fn is_event_id(text: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    text.split_once('-')
        .is_some_and(|(at, within)| number(at) && number(within))
}

/// A stream's filter and position in the journal.
struct EventFollower {
    events: Events,
    kind: Option<String>,
    seen: Position,
    unsent: VecDeque<RecordedEvent>,
}

async fn follow_response(
    events: Events,
    kind: Option<String>,
    seen: Option<&str>,
) -> Result<Response, StoreError> {
    let seen = match seen {
        Some(id) => Position::after(id),
        None => events.end().await?,
    };
    let follower = EventFollower {
        events,
        kind,
        seen,
        unsent: VecDeque::new(),
    };
    let alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL);
    Ok(Sse::new(event_stream(follower))
        .keep_alive(alive)
        .into_response())
}

fn event_stream(follower: EventFollower) -> impl Stream<Item = Result<Sent, Infallible>> {
    stream::unfold(follower, async |mut follower| {
        let recorded = follower.next().await;
        let sent = Sent::default().id(&recorded.id);
        // Serialization cannot fail: the event was read as JSON.
        let sent = sent.json_data(&recorded).unwrap_or_default();
        Some((Ok(sent), follower))
    })
}

impl EventFollower {
    async fn next(&mut self) -> RecordedEvent {
        loop {
            while let Some(recorded) = self.unsent.pop_front() {
                if self.is_wanted(&recorded) {
                    return recorded;
                }
            }
            // While the store is unavailable there is nothing to send; the next poll tries again.
            self.unsent = match self.events.after(&mut self.seen, BATCH).await {
                Ok(more) => more.into(),
                Err(_) => VecDeque::new(),
            };
            if self.unsent.is_empty() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }

    fn is_wanted(&self, recorded: &RecordedEvent) -> bool {
        let kind = recorded.event.get("event").and_then(|kind| kind.as_str());
        self.kind.is_none() || self.kind.as_deref() == kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_id_is_two_numbers() {
        assert!(is_event_id("0-0") && is_event_id("1790000000000-12"));
        for bad in ["", "-", "1", "1-", "1-x", "1-2-3", "-1-2"] {
            assert!(!is_event_id(bad), "{bad}");
        }
    }
}
