//! The response of the echoing upstream.

use serde_json::Value;

/// A request as the echoing upstream saw it.
#[derive(Debug)]
pub struct Echo(pub Value);

impl Echo {
    pub fn target(&self) -> &str {
        self.0["target"].as_str().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        let headers = self.0["headers"].as_array().unwrap().iter();
        let named = headers.filter(|h| h[0].as_str().unwrap().eq_ignore_ascii_case(name));
        named.map(|h| h[1].as_str().unwrap().to_owned()).collect()
    }
}
