//! Markup of the pages: plain HTML, accessible to screen readers.

use maud::{Markup, html};

use super::PageError;
use crate::pipeline::html_page;
use crate::settings::pages::Pages;

/// Content of the sign-in page.
pub(super) struct SignInPage<'a> {
    pub(super) pages: &'a Pages,
    pub(super) providers: Vec<ProviderLink<'a>>,
    /// Absent where users sign in at providers only.
    pub(super) form: Option<PasswordForm<'a>>,
    pub(super) problem: Option<&'a PageError>,
}

/// A link that starts a sign-in at a provider.
pub(super) struct ProviderLink<'a> {
    pub(super) title: &'a str,
    pub(super) start: String,
}

/// Content of the password form.
pub(super) struct PasswordForm<'a> {
    pub(super) action: &'a str,
    pub(super) return_to: &'a str,
    pub(super) token: &'a str,
    /// The login typed before.
    pub(super) login: &'a str,
}

/// The sign-in page: providers first, then the password form.
pub(super) fn sign_in(content: &SignInPage<'_>) -> Markup {
    let texts = &content.pages.texts;
    let body = html! {
        h1 { (texts.sign_in) }
        (problem(content.problem))
        @if !content.providers.is_empty() {
            (providers(content))
            @if content.form.is_some() { p .or { (texts.or) } }
        }
        @if let Some(form) = &content.form {
            (password_form(content, form))
        }
    };
    page(content.pages, &texts.sign_in, content.problem, &body)
}

/// One link for each provider; the first stands out where there is no other way to sign in.
fn providers(content: &SignInPage<'_>) -> Markup {
    let text = &content.pages.texts.continue_with;
    let class = |index: usize| match (index, &content.form) {
        (0, None) => "button",
        _ => "button plain",
    };
    html! {
        ul .providers {
            @for (index, provider) in content.providers.iter().enumerate() {
                li {
                    a class=(class(index)) href=(provider.start) {
                        (text.replace("{provider}", provider.title))
                    }
                }
            }
        }
    }
}

/// The password form. After an error the focus is on the field to correct.
fn password_form(content: &SignInPage<'_>, form: &PasswordForm<'_>) -> Markup {
    let texts = &content.pages.texts;
    let described = content.problem.map(|_| "problem");
    let invalid = content.problem.map(|_| "true");
    let again = !form.login.is_empty();
    // A focus on the form would skip the providers above it.
    let first = !again && content.providers.is_empty();
    html! {
        form method="post" action=(form.action) {
            input type="hidden" name="return_to" value=(form.return_to);
            input type="hidden" name="token" value=(form.token);
            label for="login" { (texts.login) }
            input #login name="login" type="text" value=(form.login) required
                autocomplete="username" autocapitalize="none" spellcheck="false"
                aria-describedby=[described] aria-invalid=[invalid] autofocus[first];
            label for="password" { (texts.password) }
            input #password name="password" type="password" required
                autocomplete="current-password"
                aria-describedby=[described] aria-invalid=[invalid] autofocus[again];
            button type="submit" { (texts.sign_in) }
        }
    }
}

/// The sign-out page.
pub(super) fn sign_out(
    pages: &Pages,
    action: &str,
    token: &str,
    error: Option<&PageError>,
) -> Markup {
    let title = &pages.texts.sign_out;
    let body = html! {
        h1 { (title) }
        (problem(error))
        form method="post" action=(action) {
            input type="hidden" name="token" value=(token);
            button type="submit" { (title) }
        }
    };
    page(pages, title, error, &body)
}

/// The page for signed-out visitors.
pub(super) fn signed_out(pages: &Pages, sign_in: &str) -> Markup {
    let title = &pages.texts.signed_out;
    let body = html! {
        h1 { (title) }
        p { a .button.plain href=(sign_in) { (pages.texts.sign_in) } }
    };
    page(pages, title, None, &body)
}

/// An error message that screen readers announce at once.
fn problem(problem: Option<&PageError>) -> Markup {
    html! {
        @if let Some(problem) = problem {
            p #problem .problem role="alert" { (problem.text) }
        }
    }
}

fn page(pages: &Pages, title: &str, problem: Option<&PageError>, body: &Markup) -> Markup {
    match problem {
        Some(_) => {
            let title = pages.texts.error.replace("{title}", title);
            html_page::document(pages, &title, body)
        }
        None => html_page::document(pages, title, body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_input_is_escaped() {
        let hostile = "\"><script>alert(1)</script>&";
        let problem = PageError {
            text: hostile.to_owned(),
            rejection: None,
        };
        let pages = Pages::default();
        let page = sign_in(&SignInPage {
            pages: &pages,
            providers: vec![ProviderLink {
                title: hostile,
                start: hostile.to_owned(),
            }],
            form: Some(PasswordForm {
                action: hostile,
                return_to: hostile,
                token: hostile,
                login: hostile,
            }),
            problem: Some(&problem),
        });
        let page = page.into_string();
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 7);
        assert_eq!(page.matches("\"&quot;&gt;").count(), 5);
    }

    #[test]
    fn providers_come_before_the_password_form() {
        let pages = Pages::default();
        let link = |title: &'static str| ProviderLink {
            title,
            start: format!("/start/{title}"),
        };
        let mut content = SignInPage {
            pages: &pages,
            providers: vec![link("One"), link("Two")],
            form: None,
            problem: None,
        };
        let page = sign_in(&content).into_string();
        assert!(!page.contains("<form") && !page.contains("class=\"or\""));
        assert_eq!(page.matches("button plain").count(), 1);
        content.form = Some(PasswordForm {
            action: "/sign-in",
            return_to: "/",
            token: "",
            login: "",
        });
        let page = sign_in(&content).into_string();
        let position = |text: &str| page.find(text);
        assert!(position("Continue with Two") < position("class=\"or\""));
        assert!(position("class=\"or\"") < position("<form"));
        assert!(!page.contains("autofocus"), "{page}");
    }
}
