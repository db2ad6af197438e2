//! Asking again about who comes again and again, before what is known of them is sure no more: so nobody who
//! is known ever waits for the store.

use std::time::Duration;

use super::{Engine, Inquiry, Item, Store};
use crate::routing::Require;

impl Store {
    /// Asks about the session, the token and the person of an inquiry, off the request's path.
    pub(super) fn renew(&self, inquiry: &Inquiry<'_>, idle: Option<Duration>) {
        let key = inquiry.blacklist_key.map(str::to_owned);
        let item = match (inquiry.session, &key) {
            (Some(id), _) => Item::Session(id),
            (None, Some(key)) => Item::Token(key.clone()),
            (None, None) => return,
        };
        if !self.shared.replica.renewing.lock().insert(item.clone()) {
            return;
        }
        let (store, known) = (self.clone(), inquiry.known.clone());
        let (session, cut_off_of) = (inquiry.session, inquiry.cut_off_of);
        let (last_access, issued_at) = (inquiry.last_access, inquiry.issued_at);
        tokio::spawn(async move {
            let anything = Require::default();
            let again = Inquiry {
                session,
                known,
                last_access,
                blacklist_key: key.as_deref(),
                cut_off_of,
                issued_at,
                ..Inquiry::nothing(&anything)
            };
            store.ask_again(&again, idle).await;
            store.shared.replica.renewing.lock().remove(&item);
        });
    }

    async fn ask_again(&self, inquiry: &Inquiry<'_>, idle: Option<Duration>) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        let asking = self.shared.replica.asking(inquiry);
        let asked = self.measured("decide", redis.decide(inquiry, idle));
        // Without an answer it is asked again when it is sure no more.
        if let Ok(findings) = asked.await {
            self.measure_lag(inquiry, &findings);
            self.shared.replica.keep(&asking, inquiry, &findings);
        }
    }
}
