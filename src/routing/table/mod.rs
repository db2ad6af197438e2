//! Finding the route of a request.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::candidates::Candidates;
use super::{HostPattern, Match, Path, PathPattern, Route};

/// All routes of a configuration, arranged so that finding one does not depend on how many there
/// are: by host, then by path segment. Only routes of the same host and path are compared with
/// each other.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    exact_hosts: HashMap<Box<str>, PathTree>,
    /// By what follows the `*.`.
    wildcard_hosts: HashMap<Box<str>, PathTree>,
    any_host: PathTree,
}

/// The routes of one host pattern, by the segments of their paths.
#[derive(Debug)]
struct PathTree {
    /// The first is the root.
    nodes: Vec<PathNode>,
}

#[derive(Debug, Default)]
struct PathNode {
    parent: Option<usize>,
    children: HashMap<Box<[u8]>, usize>,
    /// Routes whose exact path ends here.
    exact: Candidates,
    /// Routes whose prefix ends here.
    prefix: Candidates,
}

/// One route that a request's host and path lead to, for whoever asks why it was (not) taken.
#[derive(Debug, Clone)]
pub struct ExplainedRoute {
    pub route: Arc<Route>,
    /// Whether this is the route that is taken.
    pub is_match: bool,
    pub reason: String,
}

impl RouteTable {
    /// Arranges routes, given in the file's order.
    pub fn new(routes: Vec<Route>) -> RouteTable {
        let mut table = RouteTable {
            routes: routes.into_iter().map(Arc::new).collect(),
            ..RouteTable::default()
        };
        for route in &table.routes {
            let tree = match &route.matches.host {
                Some(HostPattern::Exact(host)) => {
                    table.exact_hosts.entry(host.as_str().into()).or_default()
                }
                Some(HostPattern::Wildcard(suffix)) => table
                    .wildcard_hosts
                    .entry(suffix.as_str().into())
                    .or_default(),
                None => &mut table.any_host,
            };
            tree.insert(Arc::clone(route));
        }
        let trees = table.exact_hosts.values_mut();
        for tree in trees.chain(table.wildcard_hosts.values_mut()) {
            tree.rank();
        }
        table.any_host.rank();
        table
    }

    /// In the file's order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route with the highest precedence of those that match in every respect. `host` is what
    /// [`host_of`](super::host_of) makes of it. Whether the route allows the path's oddities is the
    /// caller's question: falling through to another route would be a way around this one.
    pub fn find(
        &self,
        host: &str,
        path: &Path<'_>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<&Arc<Route>> {
        self.find_by(host, path, headers, &mut |route| {
            route.matches.mismatch(method, headers).is_none()
        })
    }

    fn find_by(
        &self,
        host: &str,
        path: &Path<'_>,
        headers: &HeaderMap,
        fits: &mut dyn FnMut(&Route) -> bool,
    ) -> Option<&Arc<Route>> {
        let mut found = None;
        self.visit(host, path, &mut |candidates| {
            found = candidates.find(headers, fits);
            found.is_some()
        });
        found
    }

    /// Every route whose host and path match, in order of precedence, with the reason why it was
    /// taken or not.
    pub fn explain(
        &self,
        host: &str,
        path: &Path<'_>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Vec<ExplainedRoute> {
        let mut considered: Vec<ExplainedRoute> = Vec::new();
        let mut winner: Option<Arc<str>> = None;
        self.visit(host, path, &mut |candidates| {
            for route in candidates.iter() {
                let obstacle = route.matches.mismatch(method, headers);
                let matched = obstacle.is_none() && winner.is_none();
                let why = match (obstacle, &winner) {
                    (Some(obstacle), _) => obstacle.describe(method),
                    (None, None) => format!("matches by {}", route.matches.describe()),
                    (None, Some(winner)) => format!("matches too, but `{winner}` comes first"),
                };
                if matched {
                    winner = Some(Arc::clone(&route.name));
                }
                considered.push(ExplainedRoute {
                    route: Arc::clone(route),
                    is_match: matched,
                    reason: why,
                });
            }
            false
        });
        considered
    }

    /// Shows `look` the routes whose host and path match, group by group in order of precedence,
    /// until it has seen enough.
    fn visit<'t>(
        &'t self,
        host: &str,
        path: &Path<'_>,
        look: &mut dyn FnMut(&'t Candidates) -> bool,
    ) {
        if self
            .exact_hosts
            .get(host)
            .is_some_and(|tree| tree.visit(path, look))
        {
            return;
        }
        let mut suffix = host;
        while !self.wildcard_hosts.is_empty()
            && let Some((_, shorter)) = suffix.split_once('.')
        {
            let tree = self.wildcard_hosts.get(shorter);
            if tree.is_some_and(|tree| tree.visit(path, look)) {
                return;
            }
            suffix = shorter;
        }
        self.any_host.visit(path, look);
    }
}

impl Default for PathTree {
    fn default() -> PathTree {
        PathTree {
            nodes: vec![PathNode::default()],
        }
    }
}

impl PathTree {
    fn insert(&mut self, route: Arc<Route>) {
        let mut at = 0;
        for segment in route.matches.path.segments() {
            at = self.child(at, segment.as_bytes());
        }
        if let Some(node) = self.nodes.get_mut(at) {
            match route.matches.path {
                PathPattern::Exact(_) => node.exact.push(route),
                PathPattern::Prefix(_) => node.prefix.push(route),
            }
        }
    }

    /// The child of a node for a segment, made if need be.
    fn child(&mut self, parent: usize, segment: &[u8]) -> usize {
        let new = self.nodes.len();
        let Some(node) = self.nodes.get_mut(parent) else {
            return new;
        };
        let at = *node.children.entry(segment.into()).or_insert(new);
        if at == new {
            self.nodes.push(PathNode {
                parent: Some(parent),
                ..PathNode::default()
            });
        }
        at
    }

    fn rank(&mut self) {
        for node in &mut self.nodes {
            node.exact.rank();
            node.prefix.rank();
        }
    }

    /// Walks down the path's segments as far as they are known, then back up. Tells whether `look`
    /// has seen enough.
    fn visit<'t>(&'t self, path: &Path<'_>, look: &mut dyn FnMut(&'t Candidates) -> bool) -> bool {
        let mut segments = path.segments();
        let mut at = 0;
        let mut whole = true;
        for segment in &mut segments {
            match self
                .nodes
                .get(at)
                .and_then(|node| node.children.get(segment))
            {
                Some(child) => at = *child,
                None => {
                    whole = false;
                    break;
                }
            }
        }
        let mut node = self.nodes.get(at);
        if whole
            && let Some(end) = node
            && look(&end.exact)
        {
            return true;
        }
        while let Some(here) = node {
            if look(&here.prefix) {
                return true;
            }
            node = here.parent.and_then(|parent| self.nodes.get(parent));
        }
        false
    }
}

impl Match {
    fn describe(&self) -> String {
        let mut parts = Vec::new();
        match &self.host {
            Some(HostPattern::Exact(host)) => parts.push(format!("host {host}")),
            Some(HostPattern::Wildcard(suffix)) => parts.push(format!("host *.{suffix}")),
            None => {}
        }
        parts.push(match &self.path {
            PathPattern::Exact(segments) => format!("path /{}", segments.join("/")),
            PathPattern::Prefix(segments) => format!("prefix /{}", segments.join("/")),
        });
        if !self.methods.is_empty() {
            parts.push("method".to_owned());
        }
        parts.extend(
            self.headers
                .iter()
                .map(|(name, _)| format!("header {name}")),
        );
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests;
