//! Paginated lists.

use http::Method;
use serde_json::{Map, Value};

use super::admin_client::{AdminClient, RequestError};
use super::print_error_line;
use crate::telemetry::printable::sanitize_line;

/// Maximum page size of the API.
const MAX_PAGE: usize = 100;

/// The combined items of several pages.
pub(super) struct Listing {
    /// The member of the responses that is the list.
    member: &'static str,
    pub(super) items: Vec<Value>,
    /// Total number of items, from the last page.
    count: Value,
    next: Option<String>,
}

impl Listing {
    /// Fetches pages until there are `limit` items, or no more.
    pub(super) async fn fetch(
        client: &AdminClient,
        member: &'static str,
        query: &[(&str, &str)],
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Listing, RequestError> {
        let mut listing = Listing {
            member,
            items: Vec::new(),
            count: Value::Null,
            next: cursor.map(str::to_owned),
        };
        loop {
            let page_size = limit.saturating_sub(listing.items.len()).min(MAX_PAGE);
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            pairs.extend_pairs(query);
            pairs.append_pair("limit", &page_size.to_string());
            if let Some(cursor) = &listing.next {
                pairs.append_pair("cursor", cursor);
            }
            let path = member.replace('_', "-");
            let target = format!("/admin/{path}?{}", pairs.finish());
            let mut page = client.request(Method::GET, &target, None).await?;
            if let Some(Value::Array(items)) = page.get_mut(member).map(Value::take) {
                listing.items.extend(items);
            }
            listing.count = page.get("count").cloned().unwrap_or_default();
            let next = page.get("next_cursor").and_then(Value::as_str);
            listing.next = next.map(str::to_owned);
            if listing.next.is_none() || listing.items.len() >= limit {
                return Ok(listing);
            }
        }
    }

    /// Replaces the total by the number of listed items.
    pub(super) fn with_own_count(self) -> Listing {
        Listing {
            count: self.items.len().into(),
            ..self
        }
    }

    /// Converts the list to the JSON of one page.
    pub(super) fn into_json(self) -> Value {
        let mut page = Map::new();
        page.insert(self.member.to_owned(), self.items.into());
        page.insert("count".to_owned(), self.count);
        page.insert("next_cursor".to_owned(), self.next.into());
        page.into()
    }

    /// Prints how to list the rest, if there is any.
    pub(super) fn print_next_page_hint(&self) {
        if let Some(cursor) = &self.next {
            let cursor = sanitize_line(cursor);
            print_error_line(&format!(
                "there are more; use --limit, or --cursor {cursor}"
            ));
        }
    }
}
