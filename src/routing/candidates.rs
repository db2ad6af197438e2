//! The routes that share a host and a path, told apart by method and headers.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Match, Route};

/// Routes of one host and path.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// In order of precedence.
    ranked: Vec<Arc<Route>>,
    /// Ranks of those that match on no header.
    plain: Vec<usize>,
    /// Ranks of the others by the first header they match on, so that thousands of tenants told
    /// apart by a header cost no more than one.
    by_header: HashMap<HeaderName, HashMap<HeaderValue, Vec<usize>>>,
}

impl Candidates {
    /// Adds one in the file's order; [`rank`](Candidates::rank) comes after the last.
    pub(super) fn push(&mut self, route: Arc<Route>) {
        self.ranked.push(route);
    }

    /// Puts them into order of precedence: a method given, more headers, the file's order.
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
                    values.entry(value.clone()).or_default().push(rank);
                }
                None => self.plain.push(rank),
            }
        }
    }

    /// In order of precedence.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.ranked.iter()
    }

    /// The first that `fits`. Those whose first header differs from the request's are not asked.
    pub(super) fn find(
        &self,
        headers: &HeaderMap,
        fits: &mut dyn FnMut(&Route) -> bool,
    ) -> Option<&Arc<Route>> {
        let mut first = |ranks: &[usize], before: Option<usize>| {
            let ranks = ranks.iter().copied();
            let mut better = ranks.take_while(|rank| before.is_none_or(|best| *rank < best));
            better.find(|rank| self.ranked.get(*rank).is_some_and(|route| fits(route)))
        };
        let mut best = first(&self.plain, None);
        for (name, values) in &self.by_header {
            // Each value has to be the wanted one, so the first tells which routes may match.
            if let Some(ranks) = headers.get(name).and_then(|value| values.get(value)) {
                best = first(ranks, best).or(best);
            }
        }
        self.ranked.get(best?)
    }
}

/// Why a route whose host and path match is not for a request.
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
                format!("takes {}, not {method}", allowed.join(", "))
            }
            Mismatch::HeaderMissing(name) => format!("wants the header `{name}`"),
            Mismatch::HeaderDiffers(name) => format!("wants another value of the header `{name}`"),
        }
    }
}

impl Match {
    /// What in the method or the headers keeps a request from this route. Each value of a repeated
    /// header has to be the wanted one, so that no second value slips past what was compared.
    pub(super) fn mismatch(&self, method: &Method, headers: &HeaderMap) -> Option<Mismatch<'_>> {
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return Some(Mismatch::Method(&self.methods));
        }
        self.headers.iter().find_map(|(name, wanted)| {
            let mut values = headers.get_all(name).iter().peekable();
            if values.peek().is_none() {
                Some(Mismatch::HeaderMissing(name.as_str()))
            } else if values.all(|value| value == wanted) {
                None
            } else {
                Some(Mismatch::HeaderDiffers(name.as_str()))
            }
        })
    }
}
