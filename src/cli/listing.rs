//! Lists that come in pages.

use http::Method;
use serde_json::{Map, Value};

use super::admin_client::{AdminClient, RequestError};
use super::{output, print_error_line};

/// The most that the API gives at once.
const MAX_PAGE: usize = 100;

/// What several pages hold together.
pub(super) struct Listing {
    /// The member of the answers that is the list.
    member: &'static str,
    pub(super) items: Vec<Value>,
    /// How many there are altogether, as the last page says.
    count: Value,
    next: Option<String>,
}

impl Listing {
    /// Reads pages until there are as many as are wanted, or no more.
    pub(super) async fn fetch(
        office: &AdminClient,
        member: &'static str,
        query: &[(&str, &str)],
        wanted: usize,
        cursor: Option<&str>,
    ) -> Result<Listing, RequestError> {
        let mut listing = Listing {
            member,
            items: Vec::new(),
            count: Value::Null,
            next: cursor.map(str::to_owned),
        };
        loop {
            let left = wanted.saturating_sub(listing.items.len()).min(MAX_PAGE);
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            pairs.extend_pairs(query);
            pairs.append_pair("limit", &left.to_string());
            if let Some(cursor) = &listing.next {
                pairs.append_pair("cursor", cursor);
            }
            let target = format!("/admin/{member}?{}", pairs.finish());
            let mut page = office.request(Method::GET, &target, None).await?;
            if let Some(Value::Array(found)) = page.get_mut(member).map(Value::take) {
                listing.items.extend(found);
            }
            listing.count = page.get("count").cloned().unwrap_or_default();
            let next = page.get("next_cursor").and_then(Value::as_str);
            listing.next = next.map(str::to_owned);
            if listing.next.is_none() || listing.items.len() >= wanted {
                return Ok(listing);
            }
        }
    }

    /// Counts what is listed only.
    pub(super) fn with_own_count(self) -> Listing {
        Listing {
            count: self.items.len().into(),
            ..self
        }
    }

    /// The shape of one page.
    pub(super) fn into_json(self) -> Value {
        let mut page = Map::new();
        page.insert(self.member.to_owned(), self.items.into());
        page.insert("count".to_owned(), self.count);
        page.insert("next_cursor".to_owned(), self.next.into());
        page.into()
    }

    /// Says how to see the rest, if there is one.
    pub(super) fn print_next_page_hint(&self) {
        if let Some(cursor) = &self.next {
            let cursor = output::sanitize_line(cursor);
            print_error_line(&format!("there are more: --limit, or --cursor {cursor}"));
        }
    }
}
