//! The identity of a request, as headers for its upstream.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

use crate::pipeline::admission::{Identity, RenderedIdentity};
use crate::pipeline::header_fields::{FieldBuffer, FieldSink, HeaderError};
use crate::routing::{IdentityHeaders, NameSet};

static EMPTY: HeaderValue = HeaderValue::from_static("");

/// Writes the identity headers of a route. They are rendered once for all requests that share the
/// subject.
///
/// # Errors
/// A value that no header can carry.
pub(super) fn write(
    sink: &mut dyn FieldSink,
    names: &Arc<IdentityHeaders>,
    identity: &Identity,
) -> Result<(), HeaderError> {
    let rendered = match identity.headers.get() {
        Some(rendered) => rendered,
        None => {
            let rendered = RenderedIdentity::new(names, identity)?;
            identity.headers.get_or_init(|| rendered)
        }
    };
    if !Arc::ptr_eq(&rendered.names, names) {
        return write_fields(sink, names, identity);
    }
    let fields = &mut rendered.fields.iter().map(|(name, value)| (name, value));
    sink.add_rendered(&rendered.lines, fields);
    Ok(())
}

/// Renders every identity header for a front proxy, unless that is done: those of the route with their
/// values, and all others without one, so that no front proxy passes on a client's own.
///
/// # Errors
/// A value that no header can carry.
pub(super) fn render_complete(
    names: &Arc<IdentityHeaders>,
    all: &NameSet,
    identity: &Identity,
) -> Result<(), HeaderError> {
    if identity.complete_headers.get().is_none() {
        let rendered = RenderedIdentity::complete(names, all, identity)?;
        identity.complete_headers.get_or_init(|| Box::new(rendered));
    }
    Ok(())
}

/// Writes what [`render_complete`] has rendered; without a caller, all headers without a value.
pub(super) fn write_complete(sink: &mut dyn FieldSink, all: &NameSet, identity: Option<&Identity>) {
    match identity.and_then(|identity| identity.complete_headers.get()) {
        Some(rendered) => {
            let fields = &mut rendered.fields.iter().map(|(name, value)| (name, value));
            sink.add_rendered(&rendered.lines, fields);
        }
        None => all.iter().for_each(|name| sink.add(name, &EMPTY)),
    }
}

impl RenderedIdentity {
    fn complete(
        names: &Arc<IdentityHeaders>,
        all: &NameSet,
        identity: &Identity,
    ) -> Result<RenderedIdentity, HeaderError> {
        let mut fields = FieldBuffer::new();
        write_fields(&mut fields, names, identity)?;
        let with_value: Vec<HeaderName> = fields.iter().map(|(name, _)| name.clone()).collect();
        for name in all.iter().filter(|name| !with_value.contains(name)) {
            fields.add(name, &EMPTY);
        }
        Ok(RenderedIdentity::of(names, fields))
    }

    fn new(
        names: &Arc<IdentityHeaders>,
        identity: &Identity,
    ) -> Result<RenderedIdentity, HeaderError> {
        let mut fields = FieldBuffer::new();
        write_fields(&mut fields, names, identity)?;
        Ok(RenderedIdentity::of(names, fields))
    }

    fn of(names: &Arc<IdentityHeaders>, fields: FieldBuffer) -> RenderedIdentity {
        let mut lines = Vec::new();
        for (name, value) in &fields {
            FieldSink::add(&mut lines, name, value);
        }
        RenderedIdentity {
            names: Arc::clone(names),
            lines: lines.into(),
            fields,
        }
    }
}

fn write_fields(
    sink: &mut dyn FieldSink,
    names: &IdentityHeaders,
    identity: &Identity,
) -> Result<(), HeaderError> {
    add(sink, &names.user, identity.user())?;
    let texts = [
        (&names.email, identity.email()),
        (&names.username, identity.username()),
        (&names.name, identity.name()),
    ];
    for (names, text) in texts {
        if let Some(text) = text {
            add(sink, names, text)?;
        }
    }
    let lists = [
        (&names.roles, identity.roles()),
        (&names.scopes, identity.scopes()),
    ];
    for (names, list) in lists {
        if !list.is_empty() && !names.is_empty() {
            add(sink, names, &join_list(list))?;
        }
    }
    if let Some(session) = identity.session() {
        add(sink, &names.session, session.id.write_hex(&mut [0; 64]))?;
    }
    Ok(())
}

/// Adds a value under each of these names.
fn add(sink: &mut dyn FieldSink, names: &[HeaderName], text: &str) -> Result<(), HeaderError> {
    if names.is_empty() {
        return Ok(());
    }
    let value = encode_visible(text);
    for name in names {
        sink.add_text(name, value.as_bytes())?;
    }
    Ok(())
}

/// Separated by commas; a comma inside a role would read as two roles.
fn join_list(list: &[String]) -> Cow<'_, str> {
    match list {
        [item] if !item.contains(',') => item.into(),
        items => {
            let items: Vec<String> = items.iter().map(|item| item.replace(',', "%2C")).collect();
            items.join(",").into()
        }
    }
}

/// Percent-encodes everything but visible ASCII, so that no value can break out of its header.
pub(super) fn encode_visible(text: &str) -> Cow<'_, str> {
    let odd = |sum, byte| sum | u8::from(!matches!(byte, 0x21..=0x7e));
    if text.bytes().fold(0, odd) == 0 {
        return text.into();
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded.into()
}
