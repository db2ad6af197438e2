use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::auth::sealing::{KeyRing, SealingKey};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::encryption as file;
use crate::config::secrets;

/// Resolves the keys that seal provider tokens; `Some(None)` without any, `None` on an error.
#[expect(clippy::option_option, reason = "an error, or validly no key")]
pub(super) fn encryption(
    raw: &file::Encryption,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<Arc<KeyRing>>> {
    let also = previous_keys(&raw.also, &location.key("also"), context);
    if raw.key.is_none() && raw.key_file.is_none() {
        if !raw.also.is_empty() {
            let message = "\"also\" requires \"key\", with which values are sealed anew";
            context.error(&location.key("also"), message);
        }
        return also.map(|_| None);
    }
    let file = raw.key_file.as_deref();
    let text = context.read_secret(location, "key", raw.key.as_ref(), file)?;
    let at = location.key(if file.is_some() { "key_file" } else { "key" });
    let key = parse_key(&text, &at, context)?;
    let ring = KeyRing {
        current: key,
        older: also?,
    };
    Some(Some(Arc::new(ring)))
}

fn previous_keys(
    raw: &[file::PreviousKey],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<SealingKey>> {
    let mut complete = Some(Vec::new());
    for (index, one) in raw.iter().enumerate() {
        let item = location.item(index);
        let (text, at) = match one {
            file::PreviousKey::Key(_) if context.lacks_secret(&item, false) => {
                (Some(secrets::stand_in()), item)
            }
            file::PreviousKey::Key(secret) => (Some(secret.0.clone().into()), item),
            file::PreviousKey::File(file) => {
                let name = file.key_file.as_str();
                let text = context.read_secret(&item, "key", None, Some(name));
                (text, item.key("key_file"))
            }
        };
        let key = text.and_then(|text| parse_key(&text, &at, context));
        complete = complete.zip(key).map(|(mut all, key)| {
            all.push(key);
            all
        });
    }
    complete
}

fn parse_key(
    text: &SecretString,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<SealingKey> {
    let key = SealingKey::from_base64(text.expose_secret().trim());
    if let Err(error) = &key {
        let message = format!(
            "not an encryption key: {error}; `portcullis keys generate --algorithm A256GCM` \
             creates one"
        );
        context.error(location, message);
    }
    key.ok()
}
