//! Security events: looked through, and followed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http::{HeaderMap, Uri};
use serde_json::json;

use super::super::answer;
use super::super::query::Query;
use super::{Desk, Refused};
use crate::events::{Events, Recorded};
use crate::store::{Position, StoreError};

/// How often a follower looks for more.
const EVERY: Duration = Duration::from_millis(500);
/// How often a follower that hears nothing is told that the connection is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How many events are read at once.
const BATCH: usize = 100;

/// `GET /admin/events?event=&limit=&cursor=`: the fleet's latest, newest first. With `follow=true`
/// an event stream of what comes from now on, or since `Last-Event-ID`.
pub(super) async fn events(
    State(desk): State<Desk>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let mut query = Query::read(&uri);
    let limit = query.limit() as usize;
    let cursor = query.cursor(|text| is_id(text).then(|| text.to_owned()));
    let kind = query.text("event");
    let follow = query.read_as("follow", "must be true or false", |text| text.parse().ok());
    query.check()?;
    if follow == Some(true) {
        let seen = headers.get("last-event-id");
        let seen = seen.and_then(|id| id.to_str().ok()).filter(|id| is_id(id));
        return Ok(followed(desk.events, kind, seen).await?);
    }
    let page = desk
        .events
        .page(kind.as_deref(), cursor.as_deref(), limit)
        .await?;
    Ok(answer::data(
        &json!({"events": page.events, "next_cursor": page.next_cursor}),
    ))
}

fn is_id(text: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    text.split_once('-')
        .is_some_and(|(at, within)| number(at) && number(within))
}

/// Where a follower stands.
struct Follower {
    events: Events,
    kind: Option<String>,
    seen: Position,
    unsent: VecDeque<Recorded>,
}

async fn followed(
    events: Events,
    kind: Option<String>,
    seen: Option<&str>,
) -> Result<Response, StoreError> {
    let seen = match seen {
        Some(id) => Position::after(id),
        None => events.end().await?,
    };
    let follower = Follower {
        events,
        kind,
        seen,
        unsent: VecDeque::new(),
    };
    let alive = KeepAlive::new().interval(SIGN_OF_LIFE);
    Ok(Sse::new(stream_of(follower))
        .keep_alive(alive)
        .into_response())
}

fn stream_of(follower: Follower) -> impl Stream<Item = Result<Sent, Infallible>> {
    stream::unfold(follower, async |mut follower| {
        let recorded = follower.next().await;
        let sent = Sent::default().id(&recorded.id);
        // It was JSON before.
        let sent = sent.json_data(&recorded).unwrap_or_default();
        Some((Ok(sent), follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Recorded {
        loop {
            while let Some(recorded) = self.unsent.pop_front() {
                if self.is_wanted(&recorded) {
                    return recorded;
                }
            }
            // While the store does not answer there is nothing to tell; it is asked again.
            self.unsent = match self.events.after(&mut self.seen, BATCH).await {
                Ok(more) => more.into(),
                Err(_) => VecDeque::new(),
            };
            if self.unsent.is_empty() {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    fn is_wanted(&self, recorded: &Recorded) -> bool {
        let kind = recorded.event.get("event").and_then(|kind| kind.as_str());
        self.kind.is_none() || self.kind.as_deref() == kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_by_two_numbers() {
        assert!(is_id("0-0") && is_id("1790000000000-12"));
        for bad in ["", "-", "1", "1-", "1-x", "1-2-3", "-1-2"] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
