//! Fields of access lines that the configuration determines.

use super::json_line;
use crate::settings::Reloadable;

/// The names of each route and of its upstream, as fields of a JSON line.
pub struct RouteFields(Vec<Names>);

struct Names {
    fields: Box<[u8]>,
    /// The end of the route's name.
    route_end: usize,
}

impl RouteFields {
    /// Renders the fields of a configuration.
    pub fn new(settings: &Reloadable) -> RouteFields {
        let fields = settings.routes.routes().iter().map(|route| {
            let upstream = route
                .upstream
                .and_then(|index| settings.upstreams.get(index));
            let mut fields = Vec::new();
            let upstream = upstream.map(|upstream| &*upstream.name);
            json_line::write_names(&mut fields, Some(&route.name), None);
            let route_end = fields.len();
            json_line::write_names(&mut fields, None, upstream);
            Names {
                fields: fields.into(),
                route_end,
            }
        });
        RouteFields(fields.collect())
    }

    /// The fields of the requests of a route; `is_forwarded`: with its upstream.
    pub fn of_route(&self, index: usize, is_forwarded: bool) -> Option<&[u8]> {
        let Names { fields, route_end } = self.0.get(index)?;
        match is_forwarded {
            true => Some(fields),
            false => fields.get(..*route_end),
        }
    }
}
