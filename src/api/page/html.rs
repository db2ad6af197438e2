//! Markup of the pages: plain HTML, accessible to screen readers.

use maud::{Markup, html};

use super::PageError;
use crate::pipeline::html_page;

/// Content of the sign-in form.
pub(super) struct SignInForm<'a> {
    pub(super) action: &'a str,
    pub(super) return_to: &'a str,
    pub(super) token: &'a str,
    /// The login typed before.
    pub(super) login: &'a str,
    pub(super) problem: Option<&'a PageError>,
}

/// The sign-in page. After an error the focus is on the field to correct.
pub(super) fn sign_in(form: &SignInForm<'_>) -> Markup {
    let described = form.problem.map(|_| "problem");
    let invalid = form.problem.map(|_| "true");
    let again = !form.login.is_empty();
    let body = html! {
        h1 { "Sign in" }
        (problem(form.problem))
        form method="post" action=(form.action) {
            input type="hidden" name="return_to" value=(form.return_to);
            input type="hidden" name="token" value=(form.token);
            label for="login" { "Email or username" }
            input #login name="login" type="text" value=(form.login) required
                autocomplete="username" autocapitalize="none" spellcheck="false"
                aria-describedby=[described] aria-invalid=[invalid] autofocus[!again];
            label for="password" { "Password" }
            input #password name="password" type="password" required
                autocomplete="current-password"
                aria-describedby=[described] aria-invalid=[invalid] autofocus[again];
            button type="submit" { "Sign in" }
        }
    };
    page("Sign in", form.problem, &body)
}

/// The sign-out page.
pub(super) fn sign_out(action: &str, token: &str, error: Option<&PageError>) -> Markup {
    let body = html! {
        h1 { "Sign out" }
        (problem(error))
        form method="post" action=(action) {
            input type="hidden" name="token" value=(token);
            button type="submit" { "Sign out" }
        }
    };
    page("Sign out", error, &body)
}

/// The page for signed-out visitors.
pub(super) fn signed_out(sign_in: &str) -> Markup {
    let body = html! {
        h1 { "You are signed out" }
        p { a href=(sign_in) { "Sign in" } }
    };
    page("You are signed out", None, &body)
}

/// An error message that screen readers announce at once.
fn problem(problem: Option<&PageError>) -> Markup {
    html! {
        @if let Some(problem) = problem {
            p #problem .problem role="alert" { (problem.text) }
        }
    }
}

fn page(title: &str, problem: Option<&PageError>, body: &Markup) -> Markup {
    let title = match problem {
        Some(_) => format!("Error: {title}"),
        None => title.to_owned(),
    };
    html_page::document(&title, body)
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
        let page = sign_in(&SignInForm {
            action: hostile,
            return_to: hostile,
            token: hostile,
            login: hostile,
            problem: Some(&problem),
        });
        let page = page.into_string();
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 5);
        assert_eq!(page.matches("\"&quot;&gt;").count(), 4);
    }
}
