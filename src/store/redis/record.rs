//! A session as the fields of a hash. Lists are written `"\nadmin\neditor\n"`, with `%` and the
//! line feed escaped in the names, so that a script finds a name by plain search.

use std::net::IpAddr;

use redis::Value;

use super::super::Entry;
use super::fault::is_wrong_type;
use crate::session::{Activity, Device, EndReason, Ended, Session, SessionId};

/// The fields, in the order in which they are always asked for (`decide.lua` as well).
pub(super) const FIELDS: [&str; 14] = [
    "user",
    "email",
    "name",
    "roles",
    "scopes",
    "created",
    "expires",
    "ip",
    "ua",
    "device_kind",
    "device_name",
    "ended_at",
    "ended_reason",
    "revision",
];

/// What a session's key was found to hold.
pub(super) enum Reading {
    Missing,
    /// Another type, or fields that are not understood.
    Malformed,
    There(Box<Session>),
}

/// The fields and values to write; what is absent is left out.
pub(super) fn fields(session: &Session) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("user", session.user.clone()),
        ("email", session.email.clone()),
        ("roles", list(&session.roles)),
        ("scopes", list(&session.scopes)),
        ("created", session.created_at.to_string()),
        ("expires", session.expires_at.to_string()),
        ("ip", session.ip.to_string()),
        ("ua", session.user_agent.clone()),
    ];
    let optional = [
        ("name", &session.name),
        ("device_kind", &session.device.kind),
        ("device_name", &session.device.name),
    ];
    for (field, value) in optional {
        fields.extend(value.clone().map(|value| (field, value)));
    }
    if let Some(ended) = session.ended {
        fields.push(("ended_at", ended.at.to_string()));
        fields.push(("ended_reason", ended.reason.as_str().to_owned()));
    }
    fields
}

/// Reads the answer to a question for [`FIELDS`].
pub(super) fn session(id: SessionId, reply: &Value) -> Reading {
    if is_wrong_type(reply) {
        return Reading::Malformed;
    }
    let Ok(values) = redis::from_redis_value_ref::<[Option<String>; 14]>(reply) else {
        return Reading::Malformed;
    };
    // A mark that a session was ended before it was written has no user.
    if values.first().is_none_or(Option::is_none) {
        return Reading::Missing;
    }
    match from_values(id, values) {
        Some(session) => Reading::There(Box::new(session)),
        None => Reading::Malformed,
    }
}

fn from_values(id: SessionId, values: [Option<String>; 14]) -> Option<Session> {
    let [
        user,
        email,
        name,
        roles,
        scopes,
        created,
        expires,
        ip,
        user_agent,
        kind,
        device,
        ended_at,
        reason,
        revision,
    ] = values;
    // An end whose reason is not understood is still an end.
    let ended = ended_at.map(|at| Ended {
        at: at.parse().unwrap_or(0),
        reason: reason
            .and_then(|reason| EndReason::parse(&reason))
            .unwrap_or(EndReason::Terminated),
    });
    Some(Session {
        id,
        user: user?,
        email: email.unwrap_or_default(),
        name,
        roles: names(roles.as_deref()?)?,
        scopes: names(scopes.as_deref()?)?,
        created_at: created?.parse().ok()?,
        expires_at: expires?.parse().ok()?,
        ip: ip?.parse().ok()?,
        user_agent: user_agent.unwrap_or_default(),
        device: Device { kind, name: device },
        ended,
        revision: revision.map_or(Some(0), |text| text.parse().ok())?,
    })
}

/// Reads the answer to a question for `last`, `count`, `ips`; what is not understood is left out.
pub(super) fn activity(reply: &Value) -> Activity {
    let fields = redis::from_redis_value_ref::<[Option<String>; 3]>(reply);
    let [last, count, addresses] = fields.unwrap_or_default();
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let addresses = addresses.unwrap_or_default();
    let parsed = addresses
        .split(' ')
        .filter_map(|ip| ip.parse::<IpAddr>().ok());
    Activity {
        last_access: number(last),
        request_count: number(count),
        ip_addresses: parsed.collect(),
        live_connections: 0,
    }
}

/// Reads a session with its activity.
pub(super) fn entry(
    id: SessionId,
    session_reply: &Value,
    activity_reply: &Value,
) -> Option<Result<Entry, ()>> {
    match session(id, session_reply) {
        Reading::Missing => None,
        Reading::Malformed => Some(Err(())),
        Reading::There(session) => Some(Ok(Entry {
            session: *session,
            activity: activity(activity_reply),
        })),
    }
}

/// Writes a list of names.
pub(super) fn list(names: &[String]) -> String {
    let mut text = String::new();
    for name in names {
        if text.is_empty() {
            text.push('\n');
        }
        if name.is_empty() {
            text.push('%');
        }
        for character in name.chars() {
            match character {
                '%' => text.push_str("%25"),
                '\n' => text.push_str("%0A"),
                other => text.push(other),
            }
        }
        text.push('\n');
    }
    text
}

fn names(list: &str) -> Option<Vec<String>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let inner = list.strip_prefix('\n')?.strip_suffix('\n')?;
    let read = |name: &str| match name {
        "%" => String::new(),
        name => name.replace("%0A", "\n").replace("%25", "%"),
    };
    Some(inner.split('\n').map(read).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lists_read_back_as_they_were_written() {
        for case in [
            vec![],
            vec![""],
            vec!["admin"],
            vec!["admin", "", "a\nb", "100%", "%0A", "%25", "%"],
        ] {
            let case: Vec<String> = case.into_iter().map(str::to_owned).collect();
            assert_eq!(names(&list(&case)).unwrap(), case);
        }
    }
}
