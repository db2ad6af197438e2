//! Look and texts of the pages.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::pages as file;
use crate::rejection::Refusal;
use crate::settings::pages::{Logo, Pages, Texts};

/// Maximum size of an inline logo, in bytes: it is sent with every page.
const MAX_LOGO: usize = 64 << 10;
/// Maximum length of a text, in characters.
const MAX_TEXT: usize = 400;

pub(super) fn pages(
    raw: &file::Pages,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Arc<Pages> {
    check_language(&raw.lang, &location.key("lang"), context);
    check_texts(&raw.texts, &location.key("texts"), context);
    if let Some(product) = &raw.product {
        check_text(product, &location.key("product"), context);
    }
    let location_of_messages = location.key("messages");
    for (code, text) in &raw.messages {
        let location = location_of_messages.key(code);
        check_text(text, &location, context);
        if !Refusal::ALL.iter().any(|refusal| refusal.code() == code) {
            let codes = Refusal::ALL.iter().map(|refusal| refusal.code());
            context.unknown_reference(&location, "error code", code, codes);
        }
    }
    Arc::new(Pages {
        logo: logo(raw, location, context),
        product: raw.product.clone(),
        language: raw.lang.clone(),
        direction: raw.direction,
        texts: raw.texts.clone(),
        messages: raw.messages.clone(),
    })
}

fn logo(
    raw: &file::Pages,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Logo> {
    let logo = match (&raw.logo, &raw.logo_file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let message = "give \"logo\" or \"logo_file\", not both";
            context.error_at_key(&location.key("logo_file"), message);
            return None;
        }
        (Some(path), None) => path_logo(path, &location.key("logo"), context)?,
        (None, Some(file)) => inline_logo(file, &location.key("logo_file"), context)?,
    };
    if raw.product.is_none() {
        // Screen readers read it in place of the image.
        context.error_at_key(location, "a logo needs \"product\", the name that it shows");
    }
    Some(logo)
}

fn path_logo(path: &str, location: &ConfigPath, context: &mut ResolveContext<'_>) -> Option<Logo> {
    let is_visible = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !path.starts_with('/') || path.starts_with("//") || !is_visible {
        let message = "\"logo\" must be a path of this host, such as /assets/logo.svg; use \
                       \"logo_file\" for a file";
        context.error(location, message);
        return None;
    }
    Some(Logo::Path(path.to_owned()))
}

fn inline_logo(
    file: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Logo> {
    let bytes = context.read_file(location, file)?;
    let displayed = context.display_path(location, file);
    if bytes.len() > MAX_LOGO {
        context.error(location, format!("{displayed} is larger than 64 KiB"));
        return None;
    }
    let Some(media_type) = media_type(&bytes) else {
        let message = format!("{displayed} is not an SVG, PNG, JPEG, GIF or WebP image");
        context.error(location, message);
        return None;
    };
    let data = STANDARD.encode(&*bytes);
    Some(Logo::Inline(format!("data:{media_type};base64,{data}")))
}

/// The media type of an image, by its first bytes.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        _ if is_webp => Some("image/webp"),
        _ if text.trim_start().starts_with('<') && text.contains("<svg") => Some("image/svg+xml"),
        _ => None,
    }
}

/// Reports a tag that has not the form of BCP 47.
fn check_language(tag: &str, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    let mut parts = tag.split('-');
    let is_primary = |part: &str| {
        (2..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let is_further = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !parts.next().is_some_and(is_primary) || !parts.all(is_further) {
        context.error(
            location,
            "\"lang\" must be a language tag, such as de or pt-BR",
        );
    }
}

fn check_texts(texts: &Texts, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    for (name, text) in texts.named() {
        check_text(text, &location.key(name), context);
    }
    for (name, text, placeholder) in [
        ("continue_with", &texts.continue_with, "{provider}"),
        ("error", &texts.error, "{title}"),
        ("retry_after", &texts.retry_after, "{seconds}"),
    ] {
        if !text.contains(placeholder) {
            let message = format!("\"{name}\" must contain {placeholder}");
            context.error(&location.key(name), message);
        }
    }
}

fn check_text(text: &str, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    let name = location.last().unwrap_or_default();
    if text.trim().is_empty() {
        context.error(location, format!("\"{name}\" must not be empty"));
    } else if text.chars().count() > MAX_TEXT {
        let message = format!("\"{name}\" has more than {MAX_TEXT} characters");
        context.error(location, message);
    } else if text.chars().any(char::is_control) {
        let message = format!("\"{name}\" must not contain control characters");
        context.error(location, message);
    }
}
