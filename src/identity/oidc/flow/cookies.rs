//! The cookies that hold flows.

use std::cmp::Reverse;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::{Flow, LIFETIME};
use crate::auth::credential::{self, FLOW_COOKIE_PREFIXES};
use crate::auth::sealing::KeyRing;
use crate::auth::session::Millis;
use crate::rejection::CallbackFault;

/// Flows of one provider that may be open in a browser; the newest count.
const MAX_OPEN: usize = 5;
/// Maximum length of name and value that browsers accept (RFC 6265bis, section 5.6).
const MAX_BYTES: usize = 4096;
/// Binds sealed texts to their purpose.
const ASSOCIATED: &[u8] = b"portcullis flow cookie";
/// Bytes of the hash of the state in a cookie's name.
const NAME_BYTES: usize = 8;
/// Where a browser returns that asked for a destination too long for a cookie.
const ROOT: &str = "/";

/// Attributes of the flow cookies of one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowCookieRules {
    pub secure: bool,
    /// The path of the provider's callback.
    pub path: String,
    /// Whether the provider's page posts the callback, so that the cookie must be sent with requests
    /// from other sites.
    pub is_posted: bool,
}

/// A flow cookie, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowCookie(String);

/// The result of searching the flow of a callback.
#[derive(Debug)]
pub struct FlowSearch {
    /// Where it failed, the browser has no such flow.
    pub found: Result<Flow, CallbackFault>,
    /// The cookie of the flow, and those of flows that no callback can finish.
    pub to_clear: Vec<FlowCookie>,
}

impl FlowSearch {
    /// The result without any cookie.
    pub fn nothing() -> FlowSearch {
        FlowSearch {
            found: Err(CallbackFault::StateUnknown),
            to_clear: Vec::new(),
        }
    }
}

impl FlowCookieRules {
    /// Builds the cookie that holds a flow; `None` if it cannot be sealed.
    pub fn set(&self, flow: &Flow, keys: &KeyRing) -> Option<HeaderValue> {
        let name = FlowCookie::of(flow.state.expose(), self.secure);
        let mut value = seal(flow, keys)?;
        if name.0.len() + value.len() > MAX_BYTES {
            let mut short = flow.clone();
            short.request.return_to = ROOT.to_owned();
            value = seal(&short, keys)?;
        }
        self.header(&name.0, &value, LIFETIME.as_secs())
    }

    /// Builds the cookie that clears one.
    pub fn clear(&self, cookie: &FlowCookie) -> Option<HeaderValue> {
        self.header(&cookie.0, "", 0)
    }

    fn header(&self, name: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
        let same_site = match self.is_posted {
            true => SameSite::None,
            false => SameSite::Lax,
        };
        let [secure_prefix, _] = FLOW_COOKIE_PREFIXES;
        let cookie = Cookie::build((name, value))
            .http_only(true)
            // Browsers reject cookies with this prefix that are not secure.
            .secure(self.secure || name.starts_with(secure_prefix))
            .path(&self.path)
            .same_site(same_site)
            .max_age(cookie::time::Duration::seconds(seconds.cast_signed()));
        HeaderValue::from_str(&cookie.build().to_string()).ok()
    }

    /// Searches the flow with this state among the cookies of a callback.
    pub fn find<'a>(
        &self,
        fields: impl Iterator<Item = &'a [u8]>,
        state: &str,
        provider: &str,
        keys: &KeyRing,
        now: Millis,
    ) -> FlowSearch {
        let held: Vec<HeldFlow> = fields
            .flat_map(credential::cookie_pairs)
            .filter_map(|pair| HeldFlow::read(pair, self.secure, keys))
            .collect();
        let mut open: Vec<(&FlowCookie, &Flow)> = held
            .iter()
            .filter_map(|held| Some((&held.cookie, held.flow.as_ref()?)))
            .filter(|(_, flow)| flow.provider == provider)
            .collect();
        open.sort_by_key(|(cookie, flow)| (Reverse(flow.started_at), *cookie));
        // A browser may send a cookie twice, of two paths.
        open.dedup_by(|(_, one), (_, other)| one.state == other.state);
        let position = open.iter().position(|(_, flow)| flow.state.matches(state));
        let found = match position.and_then(|index| Some((index, open.get(index)?))) {
            Some((_, (_, flow))) if flow.is_expired(now) => Err(CallbackFault::FlowExpired),
            Some((MAX_OPEN.., _)) => Err(CallbackFault::FlowSuperseded),
            Some((_, (_, flow))) => Ok((*flow).clone()),
            None => Err(fault_without_flow(&held, state)),
        };
        let over = open.iter().enumerate().filter(|(index, (_, flow))| {
            *index >= MAX_OPEN || flow.is_expired(now) || flow.state.matches(state)
        });
        let mut to_clear: Vec<FlowCookie> =
            over.map(|(_, (cookie, _))| (*cookie).clone()).collect();
        // Also one that cannot be opened.
        let named = held.iter().map(|held| &held.cookie);
        to_clear.extend(named.filter(|cookie| cookie.is_of(state)).cloned());
        to_clear.sort_unstable();
        to_clear.dedup();
        FlowSearch { found, to_clear }
    }
}

/// Why no flow with this state counts.
fn fault_without_flow(held: &[HeldFlow], state: &str) -> CallbackFault {
    let of_state = |held: &&HeldFlow| match &held.flow {
        Some(flow) => flow.state.matches(state),
        None => held.cookie.is_of(state),
    };
    match held.iter().find(of_state) {
        Some(HeldFlow { flow: Some(_), .. }) => CallbackFault::FlowOfOtherProvider,
        Some(HeldFlow { flow: None, .. }) => CallbackFault::FlowAltered,
        None => CallbackFault::StateUnknown,
    }
}

/// A flow cookie that a browser sent.
struct HeldFlow {
    cookie: FlowCookie,
    /// Absent if no key opens it.
    flow: Option<Flow>,
}

impl HeldFlow {
    fn read(pair: &[u8], is_secure: bool, keys: &KeyRing) -> Option<HeldFlow> {
        let (name, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
        let [secure_prefix, plain_prefix] = FLOW_COOKIE_PREFIXES;
        // Any page over plain HTTP could have set one without the prefix.
        let plain = || name.strip_prefix(plain_prefix).filter(|_| !is_secure);
        let suffix = name.strip_prefix(secure_prefix).or_else(plain)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if suffix.len() != 2 * NAME_BYTES || !suffix.bytes().all(is_hex) {
            return None;
        }
        Some(HeldFlow {
            cookie: FlowCookie(name.to_owned()),
            flow: open(value, keys),
        })
    }
}

impl FlowCookie {
    /// The cookie of the flow with this state. Its name does not reveal the state.
    fn of(state: &str, is_secure: bool) -> FlowCookie {
        let [secure, plain] = FLOW_COOKIE_PREFIXES;
        let prefix = if is_secure { secure } else { plain };
        FlowCookie(format!("{prefix}{}", name_suffix(state)))
    }

    fn is_of(&self, state: &str) -> bool {
        self.0.ends_with(&name_suffix(state))
    }
}

fn name_suffix(state: &str) -> String {
    let hash = Sha256::digest(state);
    hex::encode(hash.get(..NAME_BYTES).unwrap_or_default())
}

fn seal(flow: &Flow, keys: &KeyRing) -> Option<String> {
    let plain = serde_json::to_vec(flow).ok()?;
    let sealed = keys.seal(ASSOCIATED, &plain)?;
    Some(URL_SAFE_NO_PAD.encode(sealed))
}

fn open(value: &str, keys: &KeyRing) -> Option<Flow> {
    if value.len() > MAX_BYTES {
        return None;
    }
    let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
    let opened = keys.open(ASSOCIATED, &sealed)?;
    serde_json::from_slice(&opened.plain).ok()
}
