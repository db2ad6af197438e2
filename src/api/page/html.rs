//! How the pages look: plain HTML that every browser shows and every screen reader reads.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Problem;

/// The one style of the pages; the policy names its hash.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;font:1rem/1.5 system-ui,sans-serif;color:#1a1a1a;background:#f2f2f2}\
main{box-sizing:border-box;max-width:24rem;margin:10vh auto;padding:2rem;background:#fff;\
border-radius:.5rem}\
h1{margin:0 0 1rem;font-size:1.5rem}\
label{display:block;margin:1rem 0 .25rem;font-weight:600}\
input{box-sizing:border-box;width:100%;padding:.5rem;font:inherit;color:inherit;background:#fff;\
border:1px solid #595959;border-radius:.25rem}\
button{width:100%;margin-top:1.5rem;padding:.6rem;font:inherit;font-weight:600;color:#fff;\
background:#0b5394;border:0;border-radius:.25rem;cursor:pointer}\
a{color:#0b5394}\
:focus-visible{outline:3px solid #b45f06;outline-offset:2px}\
.problem{margin:0;padding:.75rem;color:#7a0b0b;background:#fdecec;border-left:4px solid #a61c1c}\
@media(prefers-color-scheme:dark){\
body{color:#f2f2f2;background:#121212}\
main{background:#1e1e1e}\
input{background:#121212;border-color:#a6a6a6}\
button{color:#10202e;background:#9fc5e8}\
a{color:#9fc5e8}\
.problem{color:#ffd9d9;background:#3d1414;border-left-color:#ff8a8a}}";

/// No script, no frame, no other site; the form goes to where it came from.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
style-src 'sha256-b4y333e7vg2s0gCpbl9X5xSqYGeAOv+PAaHw/ZUdoqU='; form-action 'self'; \
base-uri 'none'; frame-ancestors 'none'";

/// What the sign-in form shows.
pub(super) struct SignIn<'a> {
    pub(super) action: &'a str,
    pub(super) return_to: &'a str,
    pub(super) token: &'a str,
    /// What was typed before.
    pub(super) login: &'a str,
    pub(super) problem: Option<&'a Problem>,
}

/// The page to sign in on. After a mistake the cursor is where it is mended.
pub(super) fn sign_in(form: &SignIn<'_>) -> Markup {
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

/// The page to sign out on.
pub(super) fn sign_out(action: &str, token: &str, wrong: Option<&Problem>) -> Markup {
    let body = html! {
        h1 { "Sign out" }
        (problem(wrong))
        form method="post" action=(action) {
            input type="hidden" name="token" value=(token);
            button type="submit" { "Sign out" }
        }
    };
    page("Sign out", wrong, &body)
}

/// The page for somebody who is not signed in, or not any more.
pub(super) fn signed_out(sign_in: &str) -> Markup {
    let body = html! {
        h1 { "You are signed out" }
        p { a href=(sign_in) { "Sign in" } }
    };
    page("You are signed out", None, &body)
}

/// Read out at once by a screen reader.
fn problem(problem: Option<&Problem>) -> Markup {
    html! {
        @if let Some(problem) = problem {
            p #problem .problem role="alert" { (problem.text) }
        }
    }
}

fn page(title: &str, problem: Option<&Problem>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { @if problem.is_some() { "Error: " } (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::StatusCode;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_policy_allows_exactly_this_style() {
        let hash = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(STYLE)));
        assert!(CONTENT_SECURITY_POLICY.contains(&hash), "{hash}");
    }

    #[test]
    fn what_somebody_typed_cannot_become_markup() {
        let hostile = "\"><script>alert(1)</script>&";
        let problem = Problem::new(StatusCode::BAD_REQUEST, hostile);
        let page = sign_in(&SignIn {
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
