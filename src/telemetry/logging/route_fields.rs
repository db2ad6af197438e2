//! Fields of access lines that the configuration determines.

use super::json_line;
use crate::settings::Reloadable;

/// The names of each route and of its upstream, as fields of a JSON line.
pub struct RouteFields(Vec<Box<[u8]>>);

impl RouteFields {
    /// Renders the fields of a configuration.
    pub fn new(settings: &Reloadable) -> RouteFields {
        let fields = settings.routes.routes().iter().map(|route| {
            let upstream = settings.upstreams.get(route.upstream);
            let mut fields = Vec::new();
            let upstream = upstream.map(|upstream| &*upstream.name);
            json_line::write_names(&mut fields, Some(&route.name), upstream);
            fields.into()
        });
        RouteFields(fields.collect())
    }

    /// The fields of the requests that a route has sent to its upstream.
    pub fn of_route(&self, index: usize) -> Option<&[u8]> {
        self.0.get(index).map(|fields| &**fields)
    }
}
