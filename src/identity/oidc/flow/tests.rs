#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::HashSet;

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::auth::sealing::SealingKey;
use crate::rejection::CallbackFault;

const NOW: Millis = 1_800_000_000_000;

fn ring(current: u8, older: &[u8]) -> KeyRing {
    let key = |byte: u8| SealingKey::new([byte; 32]);
    KeyRing {
        current: key(current),
        older: older.iter().copied().map(key).collect(),
    }
}

fn rules() -> FlowCookieRules {
    FlowCookieRules {
        secure: true,
        path: "/api/v1/auth/callback/corp".to_owned(),
        is_posted: false,
    }
}

fn flow_at(started_at: Millis) -> Flow {
    let request = FlowRequest {
        redirect_uri: "https://app.example.com/api/v1/auth/callback/corp".to_owned(),
        return_to: "/orders?page=2".to_owned(),
        acr: vec!["gold".to_owned()],
        max_age: Some(60),
        link_to: None,
    };
    Flow::start("corp", request, started_at)
}

/// The pair that a browser sends of a cookie.
fn pair(cookie: &HeaderValue) -> String {
    let text = cookie.to_str().unwrap();
    text.split(';').next().unwrap().to_owned()
}

fn name(pair: &str) -> &str {
    pair.split('=').next().unwrap()
}

fn search(pairs: &[String], state: &str, keys: &KeyRing, now: Millis) -> FlowSearch {
    let field = pairs.join("; ");
    rules().find([field.as_bytes()].into_iter(), state, "corp", keys, now)
}

fn names(search: &FlowSearch) -> Vec<String> {
    let cookies = search.to_clear.iter();
    cookies
        .map(|cookie| {
            let cleared = rules().clear(cookie).unwrap();
            let cleared = cleared.to_str().unwrap();
            assert!(cleared.ends_with("; Max-Age=0"), "{cleared}");
            name(cleared).to_owned()
        })
        .collect()
}

#[test]
fn cookie_has_its_attributes() {
    let flow = flow_at(NOW);
    let cookie = rules().set(&flow, &ring(1, &[])).unwrap();
    let cookie = cookie.to_str().unwrap();
    assert!(cookie.starts_with("__Secure-portcullis-flow-"), "{cookie}");
    let attributes =
        "; HttpOnly; SameSite=Lax; Secure; Path=/api/v1/auth/callback/corp; Max-Age=600";
    assert!(cookie.ends_with(attributes), "{cookie}");
    let posted = FlowCookieRules {
        is_posted: true,
        ..rules()
    };
    let posted = posted.set(&flow, &ring(1, &[])).unwrap();
    let posted = posted.to_str().unwrap();
    assert!(posted.contains("; SameSite=None; Secure;"), "{posted}");
    let plain = FlowCookieRules {
        secure: false,
        ..rules()
    };
    let plain = plain.set(&flow, &ring(1, &[])).unwrap();
    let plain = plain.to_str().unwrap();
    assert!(plain.starts_with("portcullis-flow-"), "{plain}");
    assert!(!plain.contains("Secure"), "{plain}");
}

#[test]
fn cookie_reveals_nothing() {
    let flow = flow_at(NOW);
    let cookie = rules().set(&flow, &ring(1, &[])).unwrap();
    let cookie = cookie.to_str().unwrap();
    for secret in [&flow.state, &flow.nonce, &flow.verifier] {
        assert_eq!(secret.expose().len(), 43);
        assert!(!cookie.contains(secret.expose()));
    }
    let printed = format!("{flow:?}");
    assert!(!printed.contains(flow.verifier.expose()), "{printed}");
}

#[test]
fn every_flow_has_secrets_of_its_own() {
    let flows = [flow_at(NOW), flow_at(NOW)];
    let secrets = flows
        .iter()
        .flat_map(|flow| [&flow.state, &flow.nonce, &flow.verifier]);
    let distinct: HashSet<&str> = secrets.map(FlowSecret::expose).collect();
    assert_eq!(distinct.len(), 6);
}

#[test]
fn challenge_is_the_hash_of_the_verifier() {
    // RFC 7636, appendix B.
    let verifier = "\"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk\"";
    let flow = Flow {
        verifier: serde_json::from_str(verifier).unwrap(),
        ..flow_at(NOW)
    };
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    assert_eq!(flow.challenge(), challenge);
}

#[test]
fn flow_is_found_by_its_state() {
    let keys = ring(1, &[]);
    let flows = [flow_at(NOW), flow_at(NOW + 1)];
    let pairs = flows
        .each_ref()
        .map(|flow| pair(&rules().set(flow, &keys).unwrap()));
    for (flow, own) in flows.iter().zip(&pairs) {
        let found = search(&pairs, flow.state.expose(), &keys, NOW);
        assert_eq!(found.found.as_ref().unwrap(), flow);
        assert_eq!(names(&found), [name(own)]);
    }
    for state in ["", "x", flows[0].nonce.expose()] {
        let found = search(&pairs, state, &keys, NOW);
        assert_eq!(found.found.unwrap_err(), CallbackFault::StateUnknown);
        assert!(found.to_clear.is_empty());
    }
    let found = search(&[], flows[0].state.expose(), &keys, NOW);
    assert_eq!(found.found.unwrap_err(), CallbackFault::StateUnknown);
}

#[test]
fn flow_lives_for_ten_minutes() {
    let keys = ring(1, &[]);
    let flow = flow_at(NOW);
    let pairs = [pair(&rules().set(&flow, &keys).unwrap())];
    let life = 10 * 60 * 1000;
    for (now, is_alive) in [
        (NOW, true),
        (NOW - 60_000, true),
        (NOW + life, true),
        (NOW + life + 1, false),
    ] {
        let search = search(&pairs, flow.state.expose(), &keys, now);
        let expected = if is_alive {
            Ok(&flow)
        } else {
            Err(&CallbackFault::FlowExpired)
        };
        assert_eq!(search.found.as_ref(), expected, "{now}");
        assert_eq!(names(&search), [name(&pairs[0])]);
    }
    // The callback of another flow clears it.
    let other = flow_at(NOW + life + 1);
    let both = [pairs[0].clone(), pair(&rules().set(&other, &keys).unwrap())];
    let search = search(&both, other.state.expose(), &keys, NOW + life + 1);
    assert_eq!(search.found.as_ref(), Ok(&other));
    let mut cleared = both.each_ref().map(|pair| name(pair));
    cleared.sort_unstable();
    assert_eq!(names(&search), cleared);
}

#[test]
fn five_newest_flows_count() {
    let keys = ring(1, &[]);
    let flows: Vec<Flow> = (0..7).map(|index| flow_at(NOW + index)).collect();
    let mut pairs: Vec<String> = flows
        .iter()
        .map(|flow| pair(&rules().set(flow, &keys).unwrap()))
        .collect();
    let old: Vec<String> = pairs.iter().take(2).map(|it| name(it).to_owned()).collect();
    // In an order that says nothing, and one of them twice.
    pairs.rotate_left(3);
    pairs.push(pairs[0].clone());
    for (index, flow) in flows.iter().enumerate() {
        let search = search(&pairs, flow.state.expose(), &keys, NOW);
        let mut cleared = names(&search);
        match index {
            0 | 1 => assert_eq!(search.found.unwrap_err(), CallbackFault::FlowSuperseded),
            _ => {
                assert_eq!(search.found.unwrap(), *flow);
                let own = name_of(flow);
                assert!(cleared.contains(&own));
                cleared.retain(|name| *name != own);
            }
        }
        let mut expected = old.clone();
        expected.sort();
        assert_eq!(cleared, expected, "{index}");
    }
}

/// The name of a flow's cookie.
fn name_of(flow: &Flow) -> String {
    name(&pair(&rules().set(flow, &ring(1, &[])).unwrap())).to_owned()
}

#[test]
fn flow_belongs_to_its_provider() {
    let keys = ring(1, &[]);
    let mut other = flow_at(NOW);
    other.provider = "other".to_owned();
    let pairs = [pair(&rules().set(&other, &keys).unwrap())];
    let search = search(&pairs, other.state.expose(), &keys, NOW);
    assert_eq!(
        search.found.as_ref().unwrap_err(),
        &CallbackFault::FlowOfOtherProvider
    );
    assert_eq!(names(&search), [name(&pairs[0])]);
}

#[test]
fn altered_cookie_is_no_flow() {
    let keys = ring(1, &[]);
    let flow = flow_at(NOW);
    let sent = pair(&rules().set(&flow, &keys).unwrap());
    let (name, value) = sent.split_once('=').unwrap();
    let flipped = if value.ends_with('A') { "B" } else { "A" };
    for altered in [
        "",
        "x",
        &format!("{}{flipped}", &value[..value.len() - 1]),
        &format!("{value}AAAA"),
        &value[4..],
        &"A".repeat(5000),
    ] {
        let pairs = [format!("{name}={altered}")];
        let search = search(&pairs, flow.state.expose(), &keys, NOW);
        assert_eq!(
            search.found.as_ref().unwrap_err(),
            &CallbackFault::FlowAltered
        );
        assert_eq!(names(&search), [name]);
    }
    // A planted duplicate does not hide the genuine cookie.
    let pairs = [format!("{name}=AAAA"), sent.clone(), format!("{name}=x")];
    assert!(
        search(&pairs, flow.state.expose(), &keys, NOW)
            .found
            .is_ok()
    );
    // Sealed with another key, for another flow: it is left to a gateway that may open it.
    let foreign = pair(&rules().set(&flow_at(NOW), &ring(9, &[])).unwrap());
    let search = search(&[foreign, sent.clone()], flow.state.expose(), &keys, NOW);
    assert!(search.found.is_ok());
    assert_eq!(names(&search).len(), 1);
}

#[test]
fn rotation_loses_no_flow() {
    let flow = flow_at(NOW);
    let pairs = [pair(&rules().set(&flow, &ring(1, &[])).unwrap())];
    let state = flow.state.expose();
    assert!(search(&pairs, state, &ring(2, &[1]), NOW).found.is_ok());
    assert!(search(&pairs, state, &ring(2, &[3]), NOW).found.is_err());
}

#[test]
fn secure_cookies_have_the_prefix() {
    let keys = ring(1, &[]);
    let plain = FlowCookieRules {
        secure: false,
        ..rules()
    };
    let flow = flow_at(NOW);
    let state = flow.state.expose();
    let sent = pair(&plain.set(&flow, &keys).unwrap());
    let find = |rules: &FlowCookieRules, pair: &str| {
        let fields = [pair.as_bytes()].into_iter();
        rules.find(fields, state, "corp", &keys, NOW).found
    };
    assert!(find(&plain, &sent).is_ok());
    assert_eq!(
        find(&rules(), &sent).unwrap_err(),
        CallbackFault::StateUnknown
    );
    let secure = pair(&rules().set(&flow, &keys).unwrap());
    assert!(find(&plain, &secure).is_ok());
    for (from, to) in [
        ("__Secure", "__secure"),
        ("flow-", "flow-0"),
        ("flow-", "Flow-"),
    ] {
        let respelled = secure.replacen(from, to, 1);
        assert!(find(&rules(), &respelled).is_err(), "{respelled}");
    }
}

#[test]
fn cookie_fits_into_a_browser() {
    let keys = ring(1, &[]);
    let mut flow = flow_at(NOW);
    for (return_to, kept) in [
        (format!("/{}", "a".repeat(2047)), true),
        (format!("/{}", "\"".repeat(2047)), false),
    ] {
        flow.request.return_to.clone_from(&return_to);
        let sent = pair(&rules().set(&flow, &keys).unwrap());
        assert!(sent.len() <= 4097, "{}", sent.len());
        let found = search(&[sent], flow.state.expose(), &keys, NOW)
            .found
            .unwrap();
        let expected = if kept { return_to.as_str() } else { "/" };
        assert_eq!(found.request.return_to, expected);
    }
}

proptest! {
    #[test]
    fn any_cookie_field_is_read(field in proptest::collection::vec(any::<u8>(), 0..300)) {
        let found = rules().find([&*field].into_iter(), "x", "corp", &ring(1, &[]), NOW);
        prop_assert!(found.found.is_err());
    }
}
