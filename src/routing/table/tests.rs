#![expect(clippy::unwrap_used, reason = "tests")]

use http::{HeaderName, HeaderValue};

use super::super::{Auth, HeaderEdits, PathAmbiguities, Requirements, host_of};
use super::*;
use crate::auth::credential::AcceptedCredentials;
use crate::routing::TimeoutOverrides;

/// Parses `[host ]path[ METHOD][ header=value]…`; a path that ends with `$` is exact.
fn route(name: &str, rule: &str) -> Route {
    let mut matches = Match::default();
    for word in rule.split(' ') {
        if let Some(exact) = word.strip_suffix('$') {
            matches.path = PathPattern::exact(exact).unwrap();
        } else if word.starts_with('/') {
            matches.path = PathPattern::prefix(word).unwrap();
        } else if let Some((name, value)) = word.split_once('=') {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            matches
                .headers
                .push((name, HeaderValue::from_str(value).unwrap()));
        } else if word.bytes().all(|b| b.is_ascii_uppercase()) {
            matches.methods.push(word.parse().unwrap());
        } else {
            matches.host = Some(HostPattern::parse(word).unwrap());
        }
    }
    Route {
        index: 0,
        name: name.into(),
        matches,
        auth: Auth::None,
        accept: AcceptedCredentials::ALL,
        on_unauthenticated: crate::routing::OnUnauthenticated::Refuse,
        require: Requirements::default(),
        limits_before: Vec::new(),
        limits_after: Vec::new(),
        upstream: Some(0),
        strip_prefix: false,
        identity_headers: Arc::default(),
        max_body: 0,
        timeouts: TimeoutOverrides::default(),
        forward_credentials: false,
        assertion: false,
        provider_token: None,
        oauth_resource: false,
        allow_in_path: PathAmbiguities::NONE,
        cors: None,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

/// Builds a table of routes that are named by their rules.
fn table(rules: &[&str]) -> RouteTable {
    RouteTable::new(rules.iter().map(|rule| route(rule, rule)).collect())
}

/// Looks up `METHOD host path[ header=value]…`.
fn find<'t>(table: &'t RouteTable, request: &str) -> Option<&'t str> {
    let mut words = request.split(' ');
    let method: Method = words.next().unwrap().parse().unwrap();
    let host = host_of(words.next().unwrap()).unwrap();
    let path = Path::read(words.next().unwrap().as_bytes()).unwrap();
    let fields = words.map(|word| {
        let (name, value) = word.split_once('=').unwrap();
        (name.as_bytes(), value.as_bytes())
    });
    let found = table.find(&host, &path, &method, &fields);
    let explained = table.explain(&host, &path, &method, &fields);
    let winner = explained.iter().find(|considered| considered.is_match);
    assert_eq!(
        winner.map(|considered| &considered.route.name),
        found.map(|route| &route.name),
        "explain and find agree: {request}"
    );
    found.map(|route| &*route.name)
}

fn check(rules: &[&str], requests: &[(&str, Option<&str>)]) {
    let forward = table(rules);
    let reversed: Vec<&str> = rules.iter().rev().copied().collect();
    let reverse = table(&reversed);
    for (request, expected) in requests {
        assert_eq!(find(&forward, request), *expected, "{request}");
        assert_eq!(
            find(&reverse, request),
            *expected,
            "file reversed: {request}"
        );
    }
}

#[test]
fn prefixes_overlap_by_whole_segments_whatever_the_order() {
    check(
        &["/api", "/api-admin", "/api/admin", "/"],
        &[
            ("GET h /api", Some("/api")),
            ("GET h /api/x", Some("/api")),
            ("GET h /api-admin/x", Some("/api-admin")),
            ("GET h /api/admin", Some("/api/admin")),
            ("GET h /api/%61dmin;v=1/x", Some("/api/admin")),
            ("GET h /api//admin", Some("/api/admin")),
            ("GET h //api", Some("/api")),
            ("GET h /api/admin2", Some("/api")),
            ("GET h /api%2fadmin", Some("/")),
            ("GET h /other", Some("/")),
        ],
    );
    check(&["/api"], &[("GET h /", None), ("GET h /apix", None)]);
}

#[test]
fn most_specific_host_wins_before_path() {
    check(
        &[
            "a.example.com /",
            "*.example.com /x",
            "*.com /x/y",
            "/x/y/z$",
        ],
        &[
            ("GET a.example.com /x/y/z", Some("a.example.com /")),
            ("GET A.Example.com.:81 /x/y/z", Some("a.example.com /")),
            ("GET b.example.com /x/y/z", Some("*.example.com /x")),
            ("GET c.b.example.com /x", Some("*.example.com /x")),
            ("GET example.com /x/y", Some("*.com /x/y")),
            ("GET example.com /x", None),
            ("GET com /x/y/z", Some("/x/y/z$")),
            ("GET notexample.com /x", None),
            // No path of the more specific hosts matches.
            ("GET b.example.com /q", None),
        ],
    );
}

#[test]
fn exact_paths_win_over_prefixes_and_end_there() {
    check(
        &["/a/b$", "/a/b", "/a", "/a/$"],
        &[
            ("GET h /a/b", Some("/a/b$")),
            ("GET h /a/b/", Some("/a/b")),
            ("GET h /a/b/c", Some("/a/b")),
            ("GET h /a/", Some("/a/$")),
            ("GET h /a", Some("/a")),
        ],
    );
}

#[test]
fn partial_matches_fall_through() {
    check(
        &[
            "h /a/b POST",
            "h /a/b x=1",
            "h /a/b x=1 y=2",
            "h /a GET",
            "/a/b/c$ GET",
            "/ DELETE",
        ],
        &[
            ("POST h /a/b x=1 y=2", Some("h /a/b POST")),
            ("GET h /a/b x=1 y=2", Some("h /a/b x=1 y=2")),
            ("GET h /a/b x=1", Some("h /a/b x=1")),
            ("GET h /a/b", Some("h /a GET")),
            ("DELETE h /a/b", Some("/ DELETE")),
            ("HEAD h /a", None),
            ("GET other /a/b/c", Some("/a/b/c$ GET")),
            ("PUT h /a/b", None),
        ],
    );
    check(
        &["/a y=1 GET", "/a x=1 y=1", "/a x=1 y=1 GET", "/a GET", "/a"],
        &[
            ("GET h /a y=1", Some("/a y=1 GET")),
            ("GET h /a x=1 y=1", Some("/a x=1 y=1 GET")),
            ("PUT h /a x=1 y=1", Some("/a x=1 y=1")),
            ("GET h /a x=1", Some("/a GET")),
            ("PUT h /a y=1", Some("/a")),
        ],
    );
}

#[test]
fn file_order_breaks_ties() {
    let first = RouteTable::new(vec![
        route("first", "/a GET POST"),
        route("second", "/a GET"),
    ]);
    assert_eq!(find(&first, "GET h /a"), Some("first"));
    let second = RouteTable::new(vec![
        route("second", "/a GET"),
        route("first", "/a GET POST"),
    ]);
    assert_eq!(find(&second, "GET h /a"), Some("second"));
}

#[test]
fn every_value_of_a_repeated_header_must_match() {
    check(
        &["/a x-role=user", "/a x-role=user,admin"],
        &[
            ("GET h /a x-role=user", Some("/a x-role=user")),
            ("GET h /a x-role=user x-role=user", Some("/a x-role=user")),
            ("GET h /a x-role=user x-role=admin", None),
            ("GET h /a x-role=admin x-role=user", None),
            ("GET h /a x-role=user,admin", Some("/a x-role=user,admin")),
            ("GET h /a x-role=User", None),
            ("GET h /a", None),
        ],
    );
}

#[test]
fn explain_lists_every_candidate_in_order_with_its_reason() {
    let table = table(&["/", "/a POST", "/a x=1", "/b", "h /a/b$ y=1", "/a"]);
    let path = Path::read(b"/a/b").unwrap();
    let fields = [(&b"X"[..], &b"2"[..])].into_iter();
    let explained = table.explain("h", &path, &Method::GET, &fields);
    let lines: Vec<String> = explained
        .iter()
        .map(|c| {
            format!(
                "{}{}: {}",
                if c.is_match { "* " } else { "" },
                c.route.name,
                c.reason
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "h /a/b$ y=1: requires the header `y`",
            "/a POST: accepts POST, not GET",
            "/a x=1: requires another value of the header `x`",
            "* /a: matches by prefix /a",
            "/: also matches, but `/a` comes first",
        ]
    );
}

/// Counts the routes that a look-up compares.
fn compared(table: &RouteTable, path: &str, tenant: &str) -> usize {
    let mut count = 0;
    let path = Path::read(path.as_bytes()).unwrap();
    let fields = [(&b"X-Tenant"[..], tenant.as_bytes())].into_iter();
    table.find_by("h", &path, &fields, &mut |route| {
        count += 1;
        route.matches.mismatch(&Method::GET, &fields).is_none()
    });
    count
}

#[test]
fn lookup_cost_is_independent_of_route_count() {
    let many = |count: usize| {
        let rule = |n: usize| route(&n.to_string(), &format!("/service-{n}/api"));
        RouteTable::new((0..count).map(rule).collect())
    };
    let (small, large) = (many(10), many(10_000));
    for path in ["/service-7/api/x", "/service-7/other", "/unknown/api"] {
        assert_eq!(
            compared(&small, path, "a"),
            compared(&large, path, "a"),
            "{path}"
        );
    }
    assert_eq!(compared(&large, "/service-7/api/x", "a"), 1);
}

#[test]
fn deep_path_is_walked_once_down_and_up() {
    let deep = "/a".repeat(20_000);
    let table = table(&["/ POST", "/a POST", &format!("{deep}/b")]);
    assert_eq!(compared(&table, &format!("{deep}/c"), "a"), 2);
}

#[test]
fn routes_distinguished_by_header_are_not_all_compared() {
    let rule = |n: usize| route(&n.to_string(), &format!("/api x-tenant={n}"));
    let mut routes: Vec<Route> = (0..10_000).map(rule).collect();
    routes.push(route("default", "/api"));
    let table = RouteTable::new(routes);
    assert_eq!(compared(&table, "/api", "7000"), 2);
    assert_eq!(compared(&table, "/api", "unknown"), 1);
    assert_eq!(find(&table, "GET h /api x-tenant=7000"), Some("7000"));
    assert_eq!(find(&table, "GET h /api"), Some("default"));
}
