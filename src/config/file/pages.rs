//! Look and texts of the pages.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::pages::{Direction, Texts};

/// Brand, language and texts of the sign-in pages and of the error pages.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Pages {
    /// Name of the product, above the heading and in the title.
    pub(in crate::config) product: Option<String>,
    /// Path of a logo on the same host, such as `/assets/logo.svg`, shown in place of the name.
    pub(in crate::config) logo: Option<String>,
    /// File of a logo, SVG, PNG, JPEG, GIF or WebP, at most 64 KiB: it becomes part of the pages.
    pub(in crate::config) logo_file: Option<String>,
    /// Language of the texts, a tag such as `de` or `pt-BR`.
    pub(in crate::config) lang: String,
    /// Direction of the script: `ltr` or `rtl`.
    pub(in crate::config) direction: Direction,
    /// Texts of the pages.
    pub(in crate::config) texts: Texts,
    /// Messages of errors on pages, by code: `FLOW_INVALID: Please start again.`
    pub(in crate::config) messages: BTreeMap<String, String>,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages {
            product: None,
            logo: None,
            logo_file: None,
            lang: "en".to_owned(),
            direction: Direction::Ltr,
            texts: Texts::default(),
            messages: BTreeMap::new(),
        }
    }
}
