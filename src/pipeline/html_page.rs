//! Common frame of the HTML pages: one style sheet, and a policy that allows only that.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::settings::pages::{Direction, Logo, Pages};

/// The style sheet of all pages. The policy contains its hash.
const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1c1c1e;--muted:#5a5a60;--page:#f2f3f5;--card:#fff;\
--line:#767680;--soft:#d5d6da;--accent:#0b5394;--on-accent:#fff;--hover:#eef1f5;--focus:#b45f06;\
--alert:#7a0b0b;--alert-page:#fdecec;--alert-line:#a61c1c}\
@media(prefers-color-scheme:dark){:root{--text:#f2f2f4;--muted:#b4b4bc;--page:#111214;\
--card:#1c1d20;--line:#8e8e98;--soft:#3c3d42;--accent:#9fc5e8;--on-accent:#10202e;--hover:#292b30;\
--focus:#ffb454;--alert:#ffd9d9;--alert-page:#3d1414;--alert-line:#ff8a8a}}\
*{box-sizing:border-box}\
body{margin:0;padding:8vh 1rem 2rem;font:1rem/1.5 system-ui,sans-serif;color:var(--text);\
background:var(--page)}\
main{max-width:24rem;margin:0 auto;padding:2rem;background:var(--card);border-radius:.75rem;\
box-shadow:0 1px 3px rgb(0 0 0/.16);overflow-wrap:break-word}\
header{margin:0 0 1.5rem;color:var(--muted);font-weight:600}\
header img{display:block;max-width:100%;height:2.5rem;object-fit:contain;\
object-position:left center}\
[dir=rtl] header img{object-position:right center}\
h1{margin:0 0 1.25rem;font-size:1.5rem;line-height:1.25}\
p{margin:0 0 1rem}\
main>:last-child{margin-bottom:0}\
label{display:block;margin:0 0 .25rem;font-weight:600}\
input{width:100%;margin:0 0 1rem;padding:.625rem .75rem;font:inherit;color:inherit;\
background:var(--card);border:1px solid var(--line);border-radius:.375rem}\
button,.button{display:block;width:100%;padding:.625rem 1rem;font:inherit;font-weight:600;\
text-align:center;text-wrap:balance;text-decoration:none;color:var(--on-accent);\
background:var(--accent);\
border:1px solid var(--accent);border-radius:.375rem;cursor:pointer}\
form button{margin-top:.5rem}\
button:hover,.button:hover{filter:brightness(1.12)}\
.plain{color:var(--text);background:none;border-color:var(--line)}\
.plain:hover{background:var(--hover);filter:none}\
.providers{display:grid;gap:.75rem;margin:0;padding:0;list-style:none}\
.or{display:flex;align-items:center;gap:.75rem;margin:1.25rem 0;color:var(--muted)}\
.or::before,.or::after{content:'';flex:1;border-top:1px solid var(--soft)}\
a{color:var(--accent)}\
small{color:var(--muted)}\
:focus-visible{outline:3px solid var(--focus);outline-offset:2px}\
.problem{margin:0 0 1.25rem;padding:.75rem 1rem;color:var(--alert);background:var(--alert-page);\
border-inline-start:4px solid var(--alert-line);border-radius:.25rem}\
@media(max-width:30rem){body{padding:0;background:var(--card)}main{max-width:24rem;padding:2rem 1.25rem;\
border-radius:0;box-shadow:none}}\
@media(forced-colors:active){main{border:1px solid}}";

/// Hash of the style sheet, for the policy.
const STYLE_HASH: &str = "'sha256-EQUrN9exaNR4JcFUNl2TPAZlYKvQtD8fSbJGBFNN2yQ='";

/// Returns the content security policy of a page: no scripts, no frames, no external resources but
/// the logo.
///
/// `form_action` lists the allowed targets of its forms.
pub fn content_security_policy(form_action: &str, logo: Option<&Logo>) -> String {
    let images = match logo {
        None => "",
        Some(Logo::Inline(_)) => " img-src data:;",
        Some(Logo::Path(_)) => " img-src 'self';",
    };
    format!(
        "default-src 'none'; style-src {STYLE_HASH};{images} form-action {form_action}; \
         base-uri 'none'; frame-ancestors 'none'"
    )
}

/// Renders a complete page.
pub fn document(pages: &Pages, title: &str, body: &Markup) -> Markup {
    frame(pages, title, None, body)
}

/// Renders a page from which the browser goes on to `target` by itself.
pub fn leading_document(pages: &Pages, title: &str, target: &str, body: &Markup) -> Markup {
    frame(pages, title, Some(target), body)
}

fn frame(pages: &Pages, title: &str, target: Option<&str>, body: &Markup) -> Markup {
    let direction = (pages.direction != Direction::Ltr).then(|| pages.direction.as_str());
    html! {
        (DOCTYPE)
        html lang=(pages.language) dir=[direction] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if let Some(target) = target {
                    meta http-equiv="refresh" content=(format!("0;url={target}"));
                }
                title {
                    (title)
                    @if let Some(product) = &pages.product { " – " (product) }
                }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (brand(pages)) (body) } }
        }
    }
}

/// The logo, or else the name of the product.
fn brand(pages: &Pages) -> Markup {
    html! {
        @if let Some(product) = &pages.product {
            header {
                @match &pages.logo {
                    Some(logo) => img src=(logo.url()) alt=(product);,
                    None => (product),
                }
            }
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
        let policy = content_security_policy("'none'", None);
        assert!(policy.contains(&hash), "{hash}");
    }

    #[test]
    fn policy_allows_only_the_place_of_the_logo() {
        let policy = |logo: Option<Logo>| content_security_policy("'none'", logo.as_ref());
        assert!(!policy(None).contains("img-src"));
        assert!(policy(Some(Logo::Inline("data:x".to_owned()))).contains("; img-src data:; "));
        assert!(policy(Some(Logo::Path("/x".to_owned()))).contains("; img-src 'self'; "));
    }

    #[test]
    fn brand_and_language_are_escaped() {
        let pages = Pages {
            product: Some("<script>".to_owned()),
            logo: Some(Logo::Path("/\"><script>".to_owned())),
            language: "ar".to_owned(),
            direction: Direction::Rtl,
            ..Pages::default()
        };
        let page = document(&pages, "<script>", &html! {}).into_string();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("<html lang=\"ar\" dir=\"rtl\">"), "{page}");
        assert!(page.contains("<title>&lt;script&gt; – &lt;script&gt;</title>"));
        let page = leading_document(&pages, "x", "/a\"><script>", &html! {}).into_string();
        assert!(!page.contains("<script"), "{page}");
    }
}
