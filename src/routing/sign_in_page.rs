//! Address of a sign-in page that is not the gateway's own.

/// The placeholder of the page to return to.
const RETURN_TO: &str = "{return_to}";

/// A path or URL with the place of the page to return to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInPage {
    /// Up to the placeholder.
    before: String,
    /// From the placeholder on.
    after: String,
    form: SignInPageForm,
}

/// Where a sign-in page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInPageForm {
    /// On the host of the request; it receives the path to return to.
    Path,
    /// On any host; it receives the URL to return to.
    Url,
}

/// Reason why an address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignInPageError {
    #[error("the address must contain {{return_to}} once, in place of the page to return to")]
    Placeholder,
    #[error("the address must be visible ASCII")]
    Characters,
    #[error("a path must start with one slash")]
    Path,
    #[error("{{return_to}} must be in the query of the address")]
    Query,
}

impl SignInPage {
    /// Parses a path or URL. Whether a URL may be used is not checked.
    ///
    /// # Errors
    ///
    /// The address has no place, or several, for the page to return to, or is not well-formed.
    pub fn parse(text: &str) -> Result<SignInPage, SignInPageError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['\\', '#']) {
            return Err(SignInPageError::Characters);
        }
        let (before, after) = text
            .split_once(RETURN_TO)
            .filter(|(_, after)| !after.contains(RETURN_TO))
            .ok_or(SignInPageError::Placeholder)?;
        if !before.contains('?') {
            return Err(SignInPageError::Query);
        }
        let form = match before.strip_prefix('/') {
            Some(rest) if rest.starts_with('/') => return Err(SignInPageError::Path),
            Some(_) => SignInPageForm::Path,
            None => SignInPageForm::Url,
        };
        Ok(SignInPage {
            before: before.to_owned(),
            after: after.to_owned(),
            form,
        })
    }

    /// Where the page is.
    pub fn form(&self) -> SignInPageForm {
        self.form
    }

    /// The path of a page on the host of the request.
    pub fn path(&self) -> Option<&str> {
        let is_path = self.form == SignInPageForm::Path;
        is_path.then(|| self.before.split('?').next().unwrap_or_default())
    }

    /// The address that returns to a page, which is percent-encoded.
    pub fn address(&self, return_to: &str) -> String {
        let (before, after) = (&self.before, &self.after);
        format!("{before}{return_to}{after}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_place_to_return_to() {
        for (text, expected) in [
            ("/login?next={return_to}", Ok(SignInPageForm::Path)),
            ("/login?a=b&next={return_to}&c=d", Ok(SignInPageForm::Path)),
            (
                "https://id.example.com/login?rd={return_to}",
                Ok(SignInPageForm::Url),
            ),
            ("/login", Err(SignInPageError::Placeholder)),
            (
                "/login?a={return_to}&b={return_to}",
                Err(SignInPageError::Placeholder),
            ),
            ("/login/{return_to}", Err(SignInPageError::Query)),
            (
                "//id.example.com/?rd={return_to}",
                Err(SignInPageError::Path),
            ),
            (
                "/\\id.example.com/?rd={return_to}",
                Err(SignInPageError::Characters),
            ),
            ("/login?a b={return_to}", Err(SignInPageError::Characters)),
            ("/login?a#{return_to}", Err(SignInPageError::Characters)),
        ] {
            let form = SignInPage::parse(text).map(|page| page.form());
            assert_eq!(form, expected, "{text}");
        }
    }

    #[test]
    fn page_to_return_to_is_put_into_its_place() {
        let address = |text| SignInPage::parse(text).map(|page| page.address("%2Fa"));
        assert_eq!(
            address("/login?next={return_to}&a=b").as_deref(),
            Ok("/login?next=%2Fa&a=b")
        );
        let path = SignInPage::parse("/login?next={return_to}");
        assert_eq!(
            path.map(|page| page.path().map(str::to_owned)),
            Ok(Some("/login".to_owned()))
        );
        let url = SignInPage::parse("https://id.example.com/login?next={return_to}");
        assert_eq!(url.map(|page| page.path().map(str::to_owned)), Ok(None));
    }
}
