//! Asks for the choices that no option makes.

use std::io::{BufRead, Read as _, Write as _};

use anyhow::{Context as _, bail};

use super::GivenChoices;
use super::choices::{self, Choices, PublicUrl, SignIn, TlsChoice};
use crate::telemetry::printable::sanitize_line;

/// Maximum length of a choice, in bytes.
const MAX_CHOICE: u64 = 4096;
/// Maximum number of invalid choices to one question.
const MAX_ATTEMPTS: usize = 3;

/// A question on standard error.
struct Question {
    text: &'static str,
    /// The choice of an empty line.
    default: &'static str,
    /// The option that sets it.
    option: &'static str,
}

/// Reads choices, one per line. At the end of the input, the defaults are used.
pub(super) struct Questions<R> {
    input: R,
}

impl<R: BufRead> Questions<R> {
    pub(super) fn new(input: R) -> Questions<R> {
        Questions { input }
    }

    /// Asks all questions whose choices are not given.
    pub(super) fn ask_all(&mut self, given: &GivenChoices) -> anyhow::Result<Choices> {
        let upstream = Question {
            text: "1/5 Address of the backend",
            default: "http://127.0.0.1:3000",
            option: "--upstream",
        };
        let upstream = self.ask(&upstream, given.upstream.as_deref(), choices::upstream)?;
        let sign_in = self.ask_sign_in(given)?;
        let store = Question {
            text: "3/5 Store of sessions: memory for one gateway, or the URL of a Redis for several",
            default: "memory",
            option: "--store",
        };
        let store = self.ask(&store, given.store.as_deref(), choices::store)?;
        let public_url = Question {
            text: "4/5 Address of the gateway as browsers see it",
            default: "http://localhost:8080",
            option: "--public-url",
        };
        let public_url = self.ask(
            &public_url,
            given.public_url.as_deref(),
            choices::public_url,
        )?;
        let tls = self.ask_tls(given, &public_url)?;
        Ok(Choices {
            upstream,
            sign_in,
            store,
            public_url,
            tls,
        })
    }

    fn ask_sign_in(&mut self, given: &GivenChoices) -> anyhow::Result<SignIn> {
        let sign_in = Question {
            text: "2/5 How users sign in: passwords, or the issuer URL of an OpenID provider",
            default: "passwords",
            option: "--sign-in",
        };
        let issuer = self.ask(&sign_in, given.sign_in.as_deref(), choices::sign_in)?;
        let Some(issuer) = issuer else {
            return Ok(SignIn::Passwords);
        };
        let client_id = Question {
            text: "    ID of the gateway at the provider",
            default: "portcullis",
            option: "--client-id",
        };
        let domain = Question {
            text: "    Domain of the email addresses that may sign in",
            default: "",
            option: "--allow-domain",
        };
        Ok(SignIn::Provider {
            issuer,
            client_id: self.ask(&client_id, given.client_id.as_deref(), choices::text)?,
            domain: self.ask(&domain, given.allow_domain.as_deref(), choices::text)?,
        })
    }

    fn ask_tls(
        &mut self,
        given: &GivenChoices,
        public_url: &PublicUrl,
    ) -> anyhow::Result<TlsChoice> {
        let tls = Question {
            text: "5/5 Where TLS ends: none, proxy for a proxy on this machine, or the files CERT,KEY",
            default: match public_url.is_https {
                true => "proxy",
                false => "none",
            },
            option: "--tls",
        };
        self.ask(&tls, given.tls.as_deref(), |text| {
            let tls = choices::tls(text)?;
            choices::check_tls(public_url, &tls)?;
            Ok(tls)
        })
    }

    /// Returns the given choice, or asks until there is a valid one.
    fn ask<T>(
        &mut self,
        question: &Question,
        given: Option<&str>,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> anyhow::Result<T> {
        let option = question.option;
        if let Some(given) = given {
            return match parse(given) {
                Ok(choice) => Ok(choice),
                Err(message) => bail!("{option}: {message}"),
            };
        }
        for _ in 0..MAX_ATTEMPTS {
            let (text, is_end) = self.read_choice(question)?;
            match parse(&text) {
                Ok(choice) => return Ok(choice),
                Err(message) if is_end => bail!("{option} is missing: {message}"),
                Err(message) => print_to_terminal(&format!("    {message}\n")),
            }
        }
        bail!("no valid choice; {option} takes one as an argument")
    }

    /// Reads one choice, and whether the input has ended.
    fn read_choice(&mut self, question: &Question) -> anyhow::Result<(String, bool)> {
        let Question { text, default, .. } = question;
        print_to_terminal(&match *default {
            "" => format!("{text}: "),
            default => format!("{text} [{default}]: "),
        });
        let mut line = String::new();
        let mut input = (&mut self.input).take(MAX_CHOICE);
        let length = input.read_line(&mut line);
        let length = length.context("cannot read a choice from standard input")?;
        if length == 0 {
            // No input has ended the line.
            print_to_terminal("\n");
        }
        let choice = match line.trim() {
            "" => *default,
            choice => choice,
        };
        Ok((choice.to_owned(), length == 0))
    }
}

/// Prints to standard error, which the questions do not share with results.
fn print_to_terminal(text: &str) {
    let text: String = text.split_inclusive('\n').map(clean).collect();
    // Without a terminal, the choices still count.
    let _ = write!(std::io::stderr().lock(), "{text}");
}

fn clean(line: &str) -> String {
    match line.strip_suffix('\n') {
        Some(line) => sanitize_line(line) + "\n",
        None => sanitize_line(line),
    }
}
