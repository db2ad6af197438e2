//! Query strings of list endpoints: paging and filters.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;

use crate::auth::session::{Millis, SessionStatus};
use crate::identity::FieldErrors;
use crate::rejection::Rejection;

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;
/// Maximum number of parameters: each one is compared with those before it.
const PARAMETERS_MAX: usize = 32;

/// The parameters of a query, without duplicates, and the problems found in them.
pub(super) struct QueryParams {
    parameters: Vec<(String, String)>,
    errors: FieldErrors,
}

impl QueryParams {
    pub(super) fn parse(uri: &Uri) -> QueryParams {
        let mut read = QueryParams {
            parameters: Vec::new(),
            errors: FieldErrors::default(),
        };
        let query = uri.query().unwrap_or_default();
        let parameters = url::form_urlencoded::parse(query.as_bytes());
        for (index, (name, value)) in parameters.enumerate() {
            if index == PARAMETERS_MAX {
                let problem = format!("must have at most {PARAMETERS_MAX} parameters");
                read.errors.add("query", problem);
                break;
            }
            if read.parameters.iter().any(|(known, _)| *known == name) {
                read.errors.add(&name, "is given twice");
            } else if value.chars().any(char::is_control) {
                read.errors.add(&name, "must not hold control characters");
            } else {
                read.parameters
                    .push((name.into_owned(), value.into_owned()));
            }
        }
        read
    }

    /// Returns a parameter that is present and not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.parameters.iter().find(|(known, _)| known == name)?;
        Some(value.clone()).filter(|value| !value.is_empty())
    }

    /// Parses a parameter, recording `problem` if it is invalid.
    pub(super) fn parse_param<T>(
        &mut self,
        name: &str,
        problem: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let meaning = read(&text);
        if meaning.is_none() {
            self.errors.add(name, problem);
        }
        meaning
    }

    /// Page size: 1 to 100, 20 by default.
    pub(super) fn limit(&mut self) -> u32 {
        let within = |text: &str| {
            let limit = text.parse().ok();
            limit.filter(|limit| (1..=LIMIT_MAX).contains(limit))
        };
        self.parse_param("limit", "must be a number from 1 to 100", within)
            .unwrap_or(LIMIT_DEFAULT)
    }

    /// Status filter, `active` by default; `None` selects all sessions.
    pub(super) fn status(&mut self) -> Option<SessionStatus> {
        let word = |text: &str| match text {
            "active" => Some(Some(SessionStatus::Active)),
            "revoked" => Some(Some(SessionStatus::Revoked)),
            "expired" => Some(Some(SessionStatus::Expired)),
            "all" => Some(None),
            _ => None,
        };
        self.parse_param("status", "must be active, revoked, expired or all", word)
            .unwrap_or(Some(SessionStatus::Active))
    }

    /// Start of the page; absent for the first page.
    pub(super) fn cursor<T>(&mut self, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.parse_param("cursor", "is not one that was given out", read)
    }

    /// Rejects the query if any problem was recorded.
    pub(super) fn check(self) -> Result<(), Rejection> {
        self.errors
            .into_result(())
            .map_err(Rejection::invalid_fields)
    }
}

/// Formats the start of a page of rows, which are ordered by time and ID.
pub(super) fn format_cursor(time: Millis, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{time} {id}"))
}

/// Parses the start of a page of rows.
pub(super) fn parse_cursor(text: &str) -> Option<(Millis, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (time, id) = text.split_once(' ')?;
    let time = time
        .parse()
        .ok()
        .filter(|time| i64::try_from(*time).is_ok())?;
    Some((time, id.to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn read(uri: &str) -> QueryParams {
        QueryParams::parse(&uri.parse().unwrap())
    }

    #[test]
    fn limits_are_bounded() {
        let cases = [
            ("/x", Some(20)),
            ("/x?limit=", Some(20)),
            ("/x?limit=1", Some(1)),
            ("/x?limit=100", Some(100)),
            ("/x?limit=0", None),
            ("/x?limit=101", None),
            ("/x?limit=-1", None),
            ("/x?limit=ten", None),
        ];
        for (uri, expected) in cases {
            let mut query = read(uri);
            let limit = query.limit();
            assert_eq!(query.check().ok().map(|()| limit), expected, "{uri}");
        }
    }

    #[test]
    fn status_is_one_of_four_words() {
        let cases = [
            ("/x", Some(Some(SessionStatus::Active))),
            ("/x?status=expired", Some(Some(SessionStatus::Expired))),
            ("/x?status=all", Some(None)),
            ("/x?status=Active", None),
        ];
        for (uri, expected) in cases {
            let mut query = read(uri);
            let status = query.status();
            assert_eq!(query.check().ok().map(|()| status), expected, "{uri}");
        }
    }

    #[test]
    fn parameters_are_bounded() {
        let with = |count: usize| {
            let names: Vec<String> = (0..count).map(|index| format!("p{index}")).collect();
            read(&format!("/x?{}", names.join("&"))).check()
        };
        assert!(with(PARAMETERS_MAX).is_ok());
        for count in [PARAMETERS_MAX + 1, 10_000] {
            let rejection = with(count).unwrap_err();
            let fields = rejection.fields();
            assert_eq!(fields.len(), 1, "{count}");
            assert_eq!(fields.first().unwrap().0, "query", "{count}");
        }
    }

    #[test]
    fn cursor_round_trips_and_others_are_rejected() {
        let id = "0123456789abcdef";
        assert_eq!(
            parse_cursor(&format_cursor(5, id)),
            Some((5, id.to_owned()))
        );
        for bad in [
            "",
            "x",
            "%%%",
            &URL_SAFE_NO_PAD.encode("x y"),
            &format_cursor(u64::MAX, id),
        ] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_invalid_parameter_is_reported() {
        assert_eq!(read("/x?a=b%20c").text("a").unwrap(), "b c");
        let mut query = read("/x?limit=0&status=on&cursor=1&a=1&a=2&b=%00");
        query.limit();
        query.status();
        query.cursor(|_| None::<()>);
        let rejection = query.check().unwrap_err();
        let wrong = rejection.fields();
        let mut names: Vec<&str> = wrong.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "cursor", "limit", "status"]);
    }
}
