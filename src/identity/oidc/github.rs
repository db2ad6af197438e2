//! The claims of a GitHub user: `GET /user`, the primary email, and organizations and teams as groups.

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::Url;

use super::providers::ProviderClient;
use super::userinfo::into_object;
use crate::rejection::CallbackFault;

/// Items of a page, the maximum of the API.
const PAGE_SIZE: usize = 100;
/// Maximum number of pages of one list; further items are not read.
const MAX_PAGES: usize = 10;

/// Returns the members of the user, of which `email`, `email_verified` and `groups` are derived.
pub(super) async fn userinfo(
    client: &ProviderClient,
    url: &Url,
    access_token: &SecretString,
) -> Result<Map<String, Value>, CallbackFault> {
    let user = client.get_with_token(url.clone(), access_token).await?;
    let mut claims = into_object(user)?;
    // The public email need not be verified, and the groups are never GitHub's own member.
    for name in ["email", "email_verified", "groups"] {
        claims.remove(name);
    }
    let settings = client.settings();
    if !settings.claims.email.is_empty() {
        let emails = list(client, url, "emails", access_token).await?;
        if let Some(email) = primary_email(&emails) {
            claims.insert("email".to_owned(), email.into());
            claims.insert("email_verified".to_owned(), true.into());
        }
    }
    if !settings.claims.roles.is_empty() {
        let organizations = list(client, url, "orgs", access_token).await?;
        let teams = list(client, url, "teams", access_token).await?;
        let groups = organizations.iter().map(organization_group);
        let groups: Option<Vec<Value>> = groups.chain(teams.iter().map(team_group)).collect();
        let groups = groups.ok_or(CallbackFault::ResponseMalformed)?;
        claims.insert("groups".to_owned(), groups.into());
    }
    Ok(claims)
}

/// Reads a list beside the user, page by page.
async fn list(
    client: &ProviderClient,
    user: &Url,
    name: &str,
    access_token: &SecretString,
) -> Result<Vec<Value>, CallbackFault> {
    let mut items = Vec::new();
    for page in 1..=MAX_PAGES {
        let mut url = user.clone();
        url.set_path(&format!("{}/{name}", user.path().trim_end_matches('/')));
        url.query_pairs_mut()
            .append_pair("per_page", &PAGE_SIZE.to_string())
            .append_pair("page", &page.to_string());
        let Value::Array(more) = client.get_with_token(url, access_token).await? else {
            return Err(CallbackFault::ResponseMalformed);
        };
        let is_last = more.len() < PAGE_SIZE;
        items.extend(more);
        if is_last {
            break;
        }
    }
    Ok(items)
}

/// Returns the primary email if it is verified.
fn primary_email(emails: &[Value]) -> Option<&str> {
    let is = |email: &Value, flag: &str| email.get(flag) == Some(&Value::Bool(true));
    let mut primary = emails.iter().filter(|email| is(email, "primary"));
    let email = primary.next().filter(|email| is(email, "verified"))?;
    email.get("email")?.as_str()
}

/// `org:ACME`.
fn organization_group(organization: &Value) -> Option<Value> {
    let login = organization.get("login")?.as_str()?;
    Some(format!("org:{login}").into())
}

/// `team:ACME/ops`.
fn team_group(team: &Value) -> Option<Value> {
    let login = team.pointer("/organization/login")?.as_str()?;
    let slug = team.get("slug")?.as_str()?;
    Some(format!("team:{login}/{slug}").into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn primary_email_counts_only_if_it_is_verified() {
        let email = |email: &str, primary: Value, verified: Value| json!({"email": email, "primary": primary, "verified": verified});
        let other = email("other@example.com", json!(false), json!(true));
        for (primary, expected) in [
            (
                email("a@example.com", json!(true), json!(true)),
                Some("a@example.com"),
            ),
            (email("a@example.com", json!(true), json!(false)), None),
            (email("a@example.com", json!(true), json!("true")), None),
            (email("a@example.com", json!("true"), json!(true)), None),
        ] {
            assert_eq!(primary_email(&[other.clone(), primary]), expected);
        }
        assert_eq!(primary_email(&[other]), None);
        assert_eq!(primary_email(&[]), None);
    }

    #[test]
    fn organizations_and_teams_are_groups() {
        let team = json!({"slug": "ops", "organization": {"login": "ACME"}});
        assert_eq!(team_group(&team), Some(json!("team:ACME/ops")));
        assert_eq!(
            organization_group(&json!({"login": "ACME"})),
            Some(json!("org:ACME"))
        );
        assert_eq!(team_group(&json!({"slug": "ops"})), None);
        assert_eq!(organization_group(&json!({"login": 1})), None);
    }
}
