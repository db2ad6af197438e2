//! Look-up of the route of a request.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::Method;

use super::candidates::Candidates;
use super::{Field, HostPattern, Match, Path, PathPattern, Route};

/// All routes of a configuration, indexed by host and then by path segment.
///
/// The cost of a look-up does not depend on the number of routes. Only routes with the same host
/// and path are compared one by one.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    exact_hosts: HashMap<Box<str>, PathTree, RandomState>,
    /// By the part after `*.`.
    wildcard_hosts: HashMap<Box<str>, PathTree, RandomState>,
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
    children: HashMap<Box<[u8]>, usize, RandomState>,
    /// Routes whose exact path ends here.
    exact: Candidates,
    /// Routes whose prefix ends here.
    prefix: Candidates,
}

/// A route whose host and path match a request, with the reason why it was selected or not.
#[derive(Debug, Clone)]
pub struct ExplainedRoute {
    pub route: Arc<Route>,
    /// Whether the route was selected.
    pub is_match: bool,
    pub reason: String,
}

impl RouteTable {
    /// Builds the table from routes in file order.
    pub fn new(routes: Vec<Route>) -> RouteTable {
        let routes = routes.into_iter().enumerate();
        let routes = routes.map(|(index, route)| Arc::new(Route { index, ..route }));
        let mut table = RouteTable {
            routes: routes.collect(),
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

    /// Returns the routes in file order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Finds the matching route with the highest precedence. `host` is normalized by
    /// [`host_of`](super::host_of).
    ///
    /// The caller checks whether the route allows the ambiguities of the path. Selecting another
    /// route instead would bypass this one.
    pub fn find<'a>(
        &self,
        host: &str,
        path: &Path<'_>,
        method: &Method,
        fields: &(impl Iterator<Item = Field<'a>> + Clone),
    ) -> Option<&Arc<Route>> {
        self.find_by(host, path, fields, &mut |route| {
            route.matches.mismatch(method, fields).is_none()
        })
    }

    fn find_by<'a>(
        &self,
        host: &str,
        path: &Path<'_>,
        fields: &(impl Iterator<Item = Field<'a>> + Clone),
        is_match: &mut dyn FnMut(&Route) -> bool,
    ) -> Option<&Arc<Route>> {
        let mut found = None;
        self.visit(host, path, &mut |candidates| {
            found = candidates.find(fields, is_match);
            found.is_some()
        });
        found
    }

    /// Returns all routes with matching host and path, in order of precedence, with the reason why
    /// each was selected or not.
    pub fn explain<'a>(
        &self,
        host: &str,
        path: &Path<'_>,
        method: &Method,
        fields: &(impl Iterator<Item = Field<'a>> + Clone),
    ) -> Vec<ExplainedRoute> {
        let mut considered: Vec<ExplainedRoute> = Vec::new();
        let mut winner: Option<Arc<str>> = None;
        self.visit(host, path, &mut |candidates| {
            for route in candidates.iter() {
                let mismatch = route.matches.mismatch(method, fields);
                let is_match = mismatch.is_none() && winner.is_none();
                let reason = match (mismatch, &winner) {
                    (Some(mismatch), _) => mismatch.describe(method),
                    (None, None) => format!("matches by {}", route.matches.describe()),
                    (None, Some(winner)) => format!("also matches, but `{winner}` comes first"),
                };
                if is_match {
                    winner = Some(Arc::clone(&route.name));
                }
                considered.push(ExplainedRoute {
                    route: Arc::clone(route),
                    is_match,
                    reason,
                });
            }
            false
        });
        considered
    }

    /// Calls `visitor` with the routes of matching host and path, group by group in order of
    /// precedence, until it returns true.
    fn visit<'t>(
        &'t self,
        host: &str,
        path: &Path<'_>,
        visitor: &mut dyn FnMut(&'t Candidates) -> bool,
    ) {
        if self
            .exact_hosts
            .get(host)
            .is_some_and(|tree| tree.visit(path, visitor))
        {
            return;
        }
        let mut suffix = host;
        while !self.wildcard_hosts.is_empty()
            && let Some((_, shorter)) = suffix.split_once('.')
        {
            let tree = self.wildcard_hosts.get(shorter);
            if tree.is_some_and(|tree| tree.visit(path, visitor)) {
                return;
            }
            suffix = shorter;
        }
        self.any_host.visit(path, visitor);
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
        let mut node_index = 0;
        for segment in route.matches.path.segments() {
            node_index = self.child(node_index, segment.as_bytes());
        }
        if let Some(node) = self.nodes.get_mut(node_index) {
            match route.matches.path {
                PathPattern::Exact(_) => node.exact.push(route),
                PathPattern::Prefix(_) => node.prefix.push(route),
            }
        }
    }

    /// Returns the child of a node for a segment, and creates it if necessary.
    fn child(&mut self, parent: usize, segment: &[u8]) -> usize {
        let new = self.nodes.len();
        let Some(node) = self.nodes.get_mut(parent) else {
            return new;
        };
        let child = *node.children.entry(segment.into()).or_insert(new);
        if child == new {
            self.nodes.push(PathNode {
                parent: Some(parent),
                ..PathNode::default()
            });
        }
        child
    }

    fn rank(&mut self) {
        for node in &mut self.nodes {
            node.exact.rank();
            node.prefix.rank();
        }
    }

    /// Walks down the path's segments as far as they exist, then back up. Returns whether `visitor`
    /// returned true.
    fn visit<'t>(
        &'t self,
        path: &Path<'_>,
        visitor: &mut dyn FnMut(&'t Candidates) -> bool,
    ) -> bool {
        let mut segments = path.segments();
        let mut index = 0;
        let mut is_complete = true;
        for segment in &mut segments {
            match self
                .nodes
                .get(index)
                .and_then(|node| node.children.get(segment))
            {
                Some(child) => index = *child,
                None => {
                    is_complete = false;
                    break;
                }
            }
        }
        let mut node = self.nodes.get(index);
        if is_complete
            && let Some(end) = node
            && !end.exact.is_empty()
            && visitor(&end.exact)
        {
            return true;
        }
        while let Some(current) = node {
            if visitor(&current.prefix) {
                return true;
            }
            node = current.parent.and_then(|parent| self.nodes.get(parent));
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
