//! Routes with the same host and path, distinguished by method and headers.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderName, Method};

use super::{Field, Match, Route};

/// Routes of one host and path.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// In order of precedence.
    ranked: Vec<Arc<Route>>,
    /// Ranks of the routes that match on no header.
    plain: Vec<usize>,
    /// Ranks of the others, by the first header that they match on, so that the cost of a look-up
    /// does not grow with the number of routes distinguished by a header, such as one per tenant.
    by_header: HashMap<HeaderName, HashMap<Box<[u8]>, Vec<usize>>>,
}

impl Candidates {
    /// Adds a route, in file order. Call [`rank`](Candidates::rank) after the last.
    pub(super) fn push(&mut self, route: Arc<Route>) {
        self.ranked.push(route);
    }

    /// Sorts the routes by precedence: with a method first, then more headers, then file order.
    pub(super) fn rank(&mut self) {
        let key = |route: &Arc<Route>| {
            let matches = &route.matches;
            (matches.methods.is_empty(), Reverse(matches.headers.len()))
        };
        self.ranked.sort_by_key(key);
        for (rank, route) in self.ranked.iter().enumerate() {
            match route.matches.headers.first() {
                Some((name, value)) => {
                    let values = self.by_header.entry(name.clone()).or_default();
                    values
                        .entry(value.as_bytes().into())
                        .or_default()
                        .push(rank);
                }
                None => self.plain.push(rank),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranked.is_empty()
    }

    /// Iterates in order of precedence.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.ranked.iter()
    }

    /// Finds the first route for which `is_match` holds. It is not called for routes whose first
    /// header differs from the request's.
    pub(super) fn find<'a>(
        &self,
        fields: &(impl Iterator<Item = Field<'a>> + Clone),
        is_match: &mut dyn FnMut(&Route) -> bool,
    ) -> Option<&Arc<Route>> {
        let mut first_match = |ranks: &[usize], bound: Option<usize>| {
            let ranks = ranks.iter().copied();
            let mut candidates = ranks.take_while(|rank| bound.is_none_or(|bound| *rank < bound));
            candidates.find(|rank| self.ranked.get(*rank).is_some_and(|route| is_match(route)))
        };
        let mut best = first_match(&self.plain, None);
        for (name, values) in &self.by_header {
            // All values must equal the required one, so the first selects the possible routes.
            let first = values_of(fields.clone(), name).next();
            if let Some(ranks) = first.and_then(|value| values.get(value)) {
                best = first_match(ranks, best).or(best);
            }
        }
        self.ranked.get(best?)
    }
}

/// The values of a header, whose name a client may spell in any case.
fn values_of<'a>(
    fields: impl Iterator<Item = Field<'a>>,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let name = name.as_str().as_bytes();
    let fields = fields.filter(move |(own, _)| own.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value)
}

/// Reason why a route with matching host and path does not match a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch<'r> {
    Method(&'r [Method]),
    HeaderMissing(&'r str),
    HeaderDiffers(&'r str),
}

impl Mismatch<'_> {
    pub(super) fn describe(self, method: &Method) -> String {
        match self {
            Mismatch::Method(allowed) => {
                let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
                format!("accepts {}, not {method}", allowed.join(", "))
            }
            Mismatch::HeaderMissing(name) => format!("requires the header `{name}`"),
            Mismatch::HeaderDiffers(name) => {
                format!("requires another value of the header `{name}`")
            }
        }
    }
}

impl Match {
    /// Returns the reason why the method or the headers of a request do not match. All values of a
    /// repeated header must equal the required one, so that no unchecked value is forwarded.
    pub(super) fn mismatch<'a>(
        &self,
        method: &Method,
        fields: &(impl Iterator<Item = Field<'a>> + Clone),
    ) -> Option<Mismatch<'_>> {
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return Some(Mismatch::Method(&self.methods));
        }
        self.headers.iter().find_map(|(name, required)| {
            let mut values = values_of(fields.clone(), name).peekable();
            if values.peek().is_none() {
                Some(Mismatch::HeaderMissing(name.as_str()))
            } else if values.all(|value| value == required) {
                None
            } else {
                Some(Mismatch::HeaderDiffers(name.as_str()))
            }
        })
    }
}
