//! What calls about API keys read from bodies and queries.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use http::Uri;
use ipnet::{IpNet, Ipv4Net};
use utoipa::ToSchema;

use super::super::body::BodyFields;
use super::super::query::{QueryParams, parse_cursor};
use crate::auth::api_key::{ApiKeyId, ApiKeyOwner, ApiKeyStatus};
use crate::auth::session::Millis;
use crate::identity::normalize;
use crate::rejection::{Refusal, Rejection};
use crate::sessions::api_keys::{ApiKeyQuery, ApiKeyUpdate, MAX_GRACE, NewApiKey};

/// Maximum number of networks of a key.
const MAX_NETWORKS: usize = 64;
/// Members of a key that cannot be changed.
const FIXED: [&str; 10] = [
    "id",
    "owner",
    "user",
    "service",
    "key",
    "status",
    "created_at",
    "last_used_at",
    "last_used_ip",
    "request_count",
];

/// A new API key.
#[derive(ToSchema)]
#[schema(as = NewApiKey, example = json!({"name": "laptop"}))]
#[expect(
    dead_code,
    reason = "it describes what `into_new` reads member by member"
)]
pub(in crate::api) struct NewApiKeyBody {
    /// What the key is for.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// None by default.
    #[schema(max_items = 64)]
    scopes: Option<Vec<String>>,
    /// None by default.
    #[schema(max_items = 64)]
    roles: Option<Vec<String>>,
    /// By default, the end of the longest lifetime that is configured; if there is none, the key does
    /// not expire.
    #[schema(format = "date-time")]
    expires_at: Option<String>,
    /// Addresses and networks from which the key can be used; any by default.
    #[schema(max_items = 64)]
    allowed_ips: Option<Vec<String>>,
}

/// A change of an API key.
#[derive(ToSchema)]
#[schema(as = ApiKeyChange, example = json!({"name": "old laptop"}))]
#[expect(
    dead_code,
    reason = "it describes what `into_update` reads member by member"
)]
pub(in crate::api) struct ApiKeyChangeBody {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(max_items = 64)]
    scopes: Option<Vec<String>>,
    #[schema(max_items = 64)]
    roles: Option<Vec<String>>,
    /// Null: the default of a new key, from now on.
    #[schema(format = "date-time")]
    expires_at: Option<String>,
    #[schema(max_items = 64)]
    allowed_ips: Option<Vec<String>>,
}

/// The rotation of an API key.
#[derive(ToSchema)]
#[schema(as = ApiKeyRotation, example = json!({"grace": "24h"}))]
#[expect(dead_code, reason = "it describes what `read_grace` reads")]
pub(in crate::api) struct RotationBody {
    /// How long the previous secret remains valid: at most `7d`, `0s` by default.
    grace: Option<String>,
}

/// The body of a call that creates or changes a key.
pub(in crate::api) struct KeyFields(BodyFields);

impl KeyFields {
    pub(in crate::api) async fn read(request: Request) -> Result<KeyFields, Rejection> {
        let (parts, body) = request.into_parts();
        BodyFields::read(&parts.headers, body).await.map(KeyFields)
    }

    /// Reads the owner that an operator names, `user` or `service`.
    pub(in crate::api) fn read_owner(&mut self) -> Option<ApiKeyOwner> {
        let fields = &mut self.0;
        let named = (
            fields.optional_text("user"),
            fields.optional_text("service"),
        );
        match named {
            (Some(user), None) => Some(ApiKeyOwner::User(user)),
            (None, Some(service)) => {
                let owner = ApiKeyOwner::service(&service);
                if owner.is_none() {
                    fields.add_error("service", "must be 1 to 64 of a-z 0-9 -");
                }
                owner
            }
            _ => {
                fields.add_error("user", "or service, one of them, must be given");
                None
            }
        }
    }

    /// Reads a new key. Without `owner`, reading it has recorded a problem.
    pub(in crate::api) fn into_new(
        mut self,
        owner: Option<ApiKeyOwner>,
    ) -> Result<NewApiKey, Rejection> {
        let fields = &mut self.0;
        let name = fields.text("name");
        let name = checked(fields, "name", check_name(&name));
        let roles = optional_list(fields, "roles", normalize::roles);
        let scopes = optional_list(fields, "scopes", normalize::scopes);
        let allowed_ips = optional_list(fields, "allowed_ips", parse_networks);
        let expires_at = read_expiry(fields);
        self.0.check()?;
        Ok(NewApiKey {
            // Without one, the check has failed.
            owner: owner.ok_or(Refusal::Internal)?,
            name: name.unwrap_or_default(),
            roles: roles.unwrap_or_default(),
            scopes: scopes.unwrap_or_default(),
            allowed_ips: allowed_ips.unwrap_or_default(),
            expires_at,
        })
    }

    /// Reads a change.
    pub(in crate::api) fn into_update(mut self) -> Result<ApiKeyUpdate, Rejection> {
        let fields = &mut self.0;
        for fixed in FIXED {
            if fields.is_given(fixed) {
                fields.add_error(fixed, "cannot be changed");
            }
        }
        let name = fields.is_given("name").then(|| fields.text("name"));
        let name = name.and_then(|name| checked(fields, "name", check_name(&name)));
        let roles = optional_list(fields, "roles", normalize::roles);
        let scopes = optional_list(fields, "scopes", normalize::scopes);
        let allowed_ips = optional_list(fields, "allowed_ips", parse_networks);
        let has_expiry = fields.is_given("expires_at");
        let expires_at = has_expiry.then(|| read_expiry(fields));
        self.0.check()?;
        Ok(ApiKeyUpdate {
            name,
            roles,
            scopes,
            allowed_ips,
            expires_at,
        })
    }
}

/// Reads how long the secret before a rotation remains valid.
pub(in crate::api) async fn read_grace(request: Request) -> Result<Duration, Rejection> {
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read_optional(&parts.headers, body).await?;
    let text = fields.optional_text("grace");
    let grace = text.map(|text| humantime::parse_duration(&text));
    let grace = grace.transpose().ok();
    let grace = grace.map(Option::unwrap_or_default);
    let grace = grace.filter(|grace| *grace <= MAX_GRACE);
    if grace.is_none() {
        fields.add_error("grace", "must be a duration such as 24h, at most 7d");
    }
    fields.check()?;
    Ok(grace.unwrap_or_default())
}

/// Reads which keys are to be listed, with the owner that `owner` reads or knows.
pub(in crate::api) fn read_query(
    uri: &Uri,
    owner: impl FnOnce(&mut QueryParams) -> Option<ApiKeyOwner>,
) -> Result<ApiKeyQuery, Rejection> {
    let mut query = QueryParams::parse(uri);
    let wanted = ApiKeyQuery {
        owner: owner(&mut query),
        status: read_status(&mut query),
        limit: query.limit(),
        after: query
            .cursor(|text| parse_cursor(text).filter(|(_, id)| ApiKeyId::parse(id).is_some())),
    };
    query.check()?;
    Ok(wanted)
}

/// Reads the filter by status, `active` by default; `None` selects all keys.
fn read_status(query: &mut QueryParams) -> Option<ApiKeyStatus> {
    let word = |text: &str| match text {
        "all" => Some(None),
        text => ApiKeyStatus::parse(text).map(Some),
    };
    let problem = "must be active, expired, revoked or all";
    let status = query.parse_param("status", problem, word);
    status.unwrap_or(Some(ApiKeyStatus::Active))
}

fn check_name(name: &str) -> Result<String, &'static str> {
    match name.trim() {
        "" => Err("must not be empty"),
        _ => normalize::display_name(name),
    }
}

/// Returns a valid value, or records the field's problem.
fn checked<T>(fields: &mut BodyFields, name: &str, judged: Result<T, &'static str>) -> Option<T> {
    judged
        .map_err(|problem| fields.add_error(name, problem))
        .ok()
}

/// Reads an optional list of strings.
fn optional_list<T>(
    fields: &mut BodyFields,
    name: &str,
    judge: impl Fn(&[String]) -> Result<T, &'static str>,
) -> Option<T> {
    let texts = fields.optional_texts(name)?;
    checked(fields, name, judge(&texts))
}

fn read_expiry(fields: &mut BodyFields) -> Option<Millis> {
    let text = fields.optional_text("expires_at")?;
    let time = parse_rfc3339(&text).ok_or("must be a time such as 2027-01-01T00:00:00Z");
    checked(fields, "expires_at", time)
}

fn parse_networks(texts: &[String]) -> Result<Vec<IpNet>, &'static str> {
    let problem = "must be at most 64 addresses or networks such as 192.0.2.0/24";
    if texts.len() > MAX_NETWORKS {
        return Err(problem);
    }
    let networks: Option<Vec<IpNet>> = texts.iter().map(|text| parse_network(text)).collect();
    networks.ok_or(problem)
}

/// Parses a network, or an address as a network of its own. IPv4 addresses that are mapped into IPv6
/// are those that clients have.
fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse::<IpNet>().ok()?.trunc(),
    };
    let mapped = |address: Ipv6Addr, length: u8| {
        let length = length.checked_sub(96)?;
        Ipv4Net::new(address.to_ipv4_mapped()?, length).ok()
    };
    match network {
        IpNet::V6(v6) => Some(mapped(v6.addr(), v6.prefix_len()).map_or(network, IpNet::V4)),
        IpNet::V4(_) => Some(network),
    }
}

/// Parses a time by RFC 3339, as Unix milliseconds. Years end with 9999.
fn parse_rfc3339(text: &str) -> Option<Millis> {
    let (time, offset) = match text.len().checked_sub(6) {
        Some(at) if !text.ends_with('Z') => text.split_at_checked(at)?,
        _ => (text.strip_suffix('Z')?, "+00:00"),
    };
    let time = humantime::parse_rfc3339(&format!("{time}Z")).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let millis = i64::try_from(since.as_millis()).ok()?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let number = |text: &str, below: i64| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = text.parse().ok().filter(|_| is_number)?;
        (number < below).then_some(number)
    };
    let ahead = (number(hours, 24)? * 60 + number(minutes, 60)?) * 60_000;
    let millis = match sign {
        "+" => millis.checked_sub(ahead)?,
        "-" => millis.checked_add(ahead)?,
        _ => return None,
    };
    Millis::try_from(millis).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_an_offset() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-02T00:00:00.25Z", Some(86_400_250)),
            ("1970-01-02T01:30:00+01:30", Some(86_400_000)),
            ("1970-01-01T00:00:00-01:00", Some(3_600_000)),
            ("1970-01-01T00:00:00+01:00", None),
            ("2027-01-01T00:00:00", None),
            ("2027-01-01", None),
            ("2027-01-01T00:00:00+1:00", None),
            ("2027-01-01T00:00:00+24:00", None),
            ("2027-01-01T00:00:00+00:60", None),
            ("2027-01-01T00:00:00+-1:00", None),
            ("2027-13-01T00:00:00Z", None),
            ("2027-01-01T00:00:00é00:00", None),
            ("Z", None),
            ("", None),
            ("tomorrow", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn networks_are_those_of_client_addresses() {
        for (text, expected) in [
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("192.0.2.7/24", Some("192.0.2.0/24")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
            ("::ffff:192.0.2.7/120", Some("192.0.2.0/24")),
            ("::/0", Some("::/0")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("192.0.2.0/33", None),
            ("192.0.2", None),
            ("localhost", None),
            ("", None),
        ] {
            let network = parse_network(text).map(|network| network.to_string());
            assert_eq!(network.as_deref(), expected, "{text}");
        }
        assert!(parse_networks(&vec!["::1".to_owned(); MAX_NETWORKS]).is_ok());
        assert!(parse_networks(&vec!["::1".to_owned(); MAX_NETWORKS + 1]).is_err());
    }
}
