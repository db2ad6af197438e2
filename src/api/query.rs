//! Query strings of the lists: which page, and which filter.

use http::Uri;

use crate::session::Status;

use super::answer::Refused;

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;

/// A query's parameters; none of them twice.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(uri: &Uri) -> Result<Query, Refused> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        let query = uri.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(Refused::field(&name, "is given twice"));
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Query(parameters))
    }

    /// A parameter that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// How many are wanted: 1 to 100, 20 if not said.
    pub(super) fn limit(&self) -> Result<u32, Refused> {
        let Some(text) = self.text("limit") else {
            return Ok(LIMIT_DEFAULT);
        };
        text.parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Refused::field("limit", "must be a number from 1 to 100"))
    }

    /// Which sessions are wanted; `None` is all of them.
    pub(super) fn status(&self, default: Option<Status>) -> Result<Option<Status>, Refused> {
        match self.text("status") {
            None => Ok(default),
            Some("active") => Ok(Some(Status::Active)),
            Some("revoked") => Ok(Some(Status::Revoked)),
            Some("expired") => Ok(Some(Status::Expired)),
            Some("all") => Ok(None),
            Some(_) => Err(Refused::field(
                "status",
                "must be active, revoked, expired or all",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn read(uri: &str) -> Result<Query, Refused> {
        Query::read(&uri.parse().unwrap())
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
            assert_eq!(read(uri).unwrap().limit().ok(), expected, "{uri}");
        }
    }

    #[test]
    fn a_status_is_one_of_four_words() {
        let check = |uri| read(uri).unwrap().status(Some(Status::Active)).ok();
        assert_eq!(check("/x"), Some(Some(Status::Active)));
        assert_eq!(check("/x?status=expired"), Some(Some(Status::Expired)));
        assert_eq!(check("/x?status=all"), Some(None));
        assert_eq!(check("/x?status=Active"), None);
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        assert!(read("/x?status=all&status=active").is_err());
        assert_eq!(read("/x?a=b%20c").unwrap().text("a"), Some("b c"));
    }
}
