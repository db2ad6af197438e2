//! Look and texts of the pages.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rejection::Refusal;

/// Brand, language and texts of the sign-in pages and of the error pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// Name of the product.
    pub product: Option<String>,
    pub logo: Option<Logo>,
    /// A language tag (BCP 47).
    pub language: String,
    pub direction: Direction,
    pub texts: Texts,
    /// Messages that replace those of refusals, by code.
    pub messages: BTreeMap<String, String>,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages {
            product: None,
            logo: None,
            language: "en".to_owned(),
            direction: Direction::Ltr,
            texts: Texts::default(),
            messages: BTreeMap::new(),
        }
    }
}

impl Pages {
    /// Returns the message that replaces that of a refusal.
    pub fn message(&self, refusal: Refusal) -> Option<&str> {
        self.messages.get(refusal.code()).map(String::as_str)
    }
}

/// The address of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logo {
    /// A `data:` URL.
    Inline(String),
    /// A path of the same origin.
    Path(String),
}

impl Logo {
    pub fn url(&self) -> &str {
        match self {
            Logo::Inline(url) | Logo::Path(url) => url,
        }
    }
}

/// Direction of the script: left to right, or right to left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ltr,
    Rtl,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ltr => "ltr",
            Direction::Rtl => "rtl",
        }
    }
}

/// Texts of the pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Texts {
    /// Heading and button of the sign-in page, and links to it.
    pub sign_in: String,
    /// Link to a provider; `{provider}` is its title.
    pub continue_with: String,
    /// Between the providers and the password form.
    pub or: String,
    /// Label of the name.
    pub login: String,
    /// Label of the password.
    pub password: String,
    /// Heading and button of the sign-out page.
    pub sign_out: String,
    /// Heading of the page after a sign-out.
    pub signed_out: String,
    /// Heading of the page that leads on after a sign-in.
    pub signed_in: String,
    /// Link of the page that leads on after a sign-in.
    pub r#continue: String,
    /// Heading of the page after a sign-in that failed.
    pub sign_in_failed: String,
    /// Title of a page with an error; `{title}` is the title of the page.
    pub error: String,
    /// Link that starts a sign-in again.
    pub try_again: String,
    /// Link to the sign-in page after a sign-in that failed, where there are other ways to sign in.
    pub other_ways: String,
    /// When a request may be repeated; `{seconds}` is the number, at least 2.
    pub retry_after: String,
    /// A request that may be repeated almost at once.
    pub retry_soon: String,
    /// Wrong name or password.
    pub wrong_credentials: String,
    /// Too many attempts to sign in.
    pub too_many_attempts: String,
    /// A sign-in or sign-out that does not work at the moment.
    pub unavailable: String,
    /// A form that another site sent.
    pub foreign_form: String,
    /// A browser without the cookie that it received.
    pub cookie_not_kept: String,
}

impl Default for Texts {
    fn default() -> Texts {
        let text = str::to_owned;
        Texts {
            sign_in: text("Sign in"),
            continue_with: text("Continue with {provider}"),
            or: text("or"),
            login: text("Email or username"),
            password: text("Password"),
            sign_out: text("Sign out"),
            signed_out: text("You are signed out"),
            signed_in: text("You are signed in"),
            r#continue: text("Continue"),
            sign_in_failed: text("Sign-in failed"),
            error: text("Error: {title}"),
            try_again: text("Try again"),
            other_ways: text("Other ways to sign in"),
            retry_after: text("Please try again in {seconds} seconds."),
            retry_soon: text("Please try again in a moment."),
            wrong_credentials: text("The name or the password is wrong."),
            too_many_attempts: text("Too many attempts. Please wait before you try again."),
            unavailable: text("This does not work at the moment. Please try again soon."),
            foreign_form: text(
                "This form was sent from elsewhere, or it was too old. Please try again.",
            ),
            cookie_not_kept: text(
                "You are not signed in. If you have just signed in, your browser did not keep the \
                 cookie: allow cookies for this site, and open it by an address that begins with \
                 https://.",
            ),
        }
    }
}

impl Texts {
    /// Every text, with its name in the configuration.
    pub fn named(&self) -> [(&'static str, &str); 20] {
        [
            ("sign_in", &self.sign_in),
            ("continue_with", &self.continue_with),
            ("or", &self.or),
            ("login", &self.login),
            ("password", &self.password),
            ("sign_out", &self.sign_out),
            ("signed_out", &self.signed_out),
            ("signed_in", &self.signed_in),
            ("continue", &self.r#continue),
            ("sign_in_failed", &self.sign_in_failed),
            ("error", &self.error),
            ("try_again", &self.try_again),
            ("other_ways", &self.other_ways),
            ("retry_after", &self.retry_after),
            ("retry_soon", &self.retry_soon),
            ("wrong_credentials", &self.wrong_credentials),
            ("too_many_attempts", &self.too_many_attempts),
            ("unavailable", &self.unavailable),
            ("foreign_form", &self.foreign_form),
            ("cookie_not_kept", &self.cookie_not_kept),
        ]
    }
}
