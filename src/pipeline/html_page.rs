//! Common frame of the HTML pages: one style sheet, and a policy that allows only that.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style sheet of all pages. The policy contains its hash.
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

/// Hash of the style sheet, for the policy.
const STYLE_HASH: &str = "'sha256-b4y333e7vg2s0gCpbl9X5xSqYGeAOv+PAaHw/ZUdoqU='";

/// Returns the content security policy of a page: no scripts, no frames, no external resources.
///
/// `form_action` lists the allowed targets of its forms.
pub fn content_security_policy(form_action: &str) -> String {
    format!(
        "default-src 'none'; style-src {STYLE_HASH}; form-action {form_action}; \
         base-uri 'none'; frame-ancestors 'none'"
    )
}

/// Renders a complete page.
pub fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
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
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn policy_allows_exactly_this_style() {
        let hash = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(STYLE)));
        assert!(content_security_policy("'none'").contains(&hash), "{hash}");
    }
}
