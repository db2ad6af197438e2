//! Whether a file has the right shape: keys, types, words, numbers. Every mistake is told at once,
//! and mended for the time being with the likeliest guess, so that what else is wrong can be told
//! in the same run.

use std::collections::HashSet;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::document::{Place, Places, lay_out};
use super::mistakes::{Mistake, did_you_mean, nearest};
use super::repair::{Repair, apply, placeholder};
use super::schema::resolve;
use super::yaml::Node;

/// A tree that has the right shape, by itself or by guesses.
pub(super) struct Shaped {
    pub(super) value: Value,
    pub(super) places: Places,
    pub(super) mistakes: Vec<Mistake>,
    /// What was guessed, and is not to be complained about again.
    pub(super) guessed: Vec<Place>,
}

/// Checks the tree against the schema.
pub(super) fn check(mut root: Node, schema: &Value) -> Result<Shaped, Mistake> {
    let validator = jsonschema::validator_for(schema).map_err(|error| Mistake {
        at: root.at,
        message: format!("the schema itself is broken: {error}"),
    })?;
    quote_numbers_from_environment(&mut root, &validator);
    let mut mistakes = Vec::new();
    let mut guessed: Vec<Place> = Vec::new();
    // What a misspelt key holds is looked at once the key is mended.
    for _ in 0..ROUNDS {
        let (value, places) = lay_out(&root);
        let faults = faults(schema, &validator, &value, &places);
        let news = faults.into_iter().filter(|fault| {
            let place = fault.repair.place();
            !guessed.iter().any(|guess| place.is_within(guess))
        });
        let news: Vec<Fault> = news.collect();
        if news.is_empty() {
            break;
        }
        for Fault { mistake, repair } in news {
            if !places.is_unresolved(repair.place()) {
                mistakes.push(mistake);
            }
            guessed.extend(apply(&mut root, repair));
        }
    }
    let (value, places) = lay_out(&root);
    guessed.extend(places.unresolved().cloned());
    Ok(Shaped {
        value,
        places,
        mistakes,
        guessed,
    })
}

/// Mistakes inside misspelt keys inside misspelt keys.
const ROUNDS: usize = 3;

/// Everything that the schema does not like. A key that is missing because it is misspelt is told
/// once.
fn faults(schema: &Value, validator: &Validator, value: &Value, places: &Places) -> Vec<Fault> {
    let mut report = Report {
        schema,
        value,
        places,
        faults: Vec::new(),
    };
    for error in validator.iter_errors(value) {
        report.tell(&error);
    }
    let mut faults = report.faults;
    let renamed: HashSet<Place> = faults
        .iter()
        .filter_map(|fault| fault.repair.new_place())
        .collect();
    faults.retain(|fault| {
        !matches!(fault.repair, Repair::Put(..)) || !renamed.contains(fault.repair.place())
    });
    faults
}

/// A value such as `${PASSWORD}` is text where text is wanted, even when it is all digits.
fn quote_numbers_from_environment(root: &mut Node, validator: &Validator) {
    let (value, places) = lay_out(root);
    let mut wanted = Vec::new();
    for error in validator.iter_errors(&value) {
        collect_wanted_text(&error, &mut wanted);
    }
    for place in wanted {
        if places.is_from_environment(&place) {
            apply(root, Repair::Quote(place));
        }
    }
}

fn collect_wanted_text(error: &ValidationError<'_>, wanted: &mut Vec<Place>) {
    match error.kind() {
        ValidationErrorKind::AnyOf { context } => {
            for error in context.iter().flatten() {
                collect_wanted_text(error, wanted);
            }
        }
        ValidationErrorKind::Type { kind } if names(kind).contains(&"string") => {
            wanted.push(Place::from_pointer(error.instance_path().as_str()));
        }
        _ => {}
    }
}

struct Fault {
    mistake: Mistake,
    repair: Repair,
}

struct Report<'a> {
    schema: &'a Value,
    value: &'a Value,
    places: &'a Places,
    faults: Vec<Fault>,
}

impl<'a> Report<'a> {
    fn tell(&mut self, error: &ValidationError<'_>) {
        use ValidationErrorKind as K;
        let place = Place::from_pointer(error.instance_path().as_str());
        let around = self.schema_around(error);
        match error.kind() {
            K::AdditionalProperties { unexpected } => {
                for key in unexpected {
                    self.unknown_key(&place, key, around);
                }
            }
            K::Required { property } => {
                self.missing(&place, property.as_str().unwrap_or_default(), around);
            }
            K::AnyOf { context } => self.tell_nearest_branch(&place, context, around),
            kind => {
                let message = self.sentence(&place, kind, around);
                self.fault(&place, message, around);
            }
        }
    }

    /// The schema whose keyword the error is about.
    fn schema_around(&self, error: &ValidationError<'_>) -> &'a Value {
        let keyword = Place::from_pointer(error.schema_path().as_str());
        keyword
            .parent()
            .and_then(|parent| self.schema.pointer(parent.pointer()))
            .unwrap_or(&Value::Null)
    }

    /// Of several shapes that a value may have, the one that it resembles is explained.
    fn tell_nearest_branch(
        &mut self,
        place: &Place,
        branches: &[Vec<ValidationError<'static>>],
        around: &'a Value,
    ) {
        let mut expected = Vec::new();
        for branch in branches {
            let of_another_type = branch.iter().find_map(|error| match error.kind() {
                ValidationErrorKind::Type { kind }
                    if error.instance_path().as_str() == place.pointer() =>
                {
                    Some(names(kind))
                }
                _ => None,
            });
            match of_another_type {
                Some(types) => expected.extend(types),
                None => return branch.iter().for_each(|error| self.tell(error)),
            }
        }
        let message = self.wrong_type(place, &expected, around);
        self.fault(place, message, around);
    }

    fn unknown_key(&mut self, place: &Place, key: &str, around: &'a Value) {
        let at = place.key(key);
        let known = || {
            let properties = around.get("properties").and_then(Value::as_object);
            properties
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
        };
        let message = format!("unknown key \"{key}\"{}", did_you_mean(key, known()));
        let free = |name: &&str| !self.places.has(&place.key(name));
        let repair = match nearest(key, known()).filter(free) {
            Some(meant) => Repair::Rename(at.clone(), meant.to_owned()),
            None => Repair::Remove(at.clone()),
        };
        let mistake = Mistake {
            at: self.places.key(&at),
            message,
        };
        self.faults.push(Fault { mistake, repair });
    }

    fn missing(&mut self, place: &Place, key: &str, around: &'a Value) {
        let mistake = Mistake {
            at: self.places.value(place),
            message: format!("\"{key}\" is missing"),
        };
        let property = around.get("properties").and_then(|all| all.get(key));
        let guess = placeholder(self.schema, property.unwrap_or(&Value::Null), mistake.at);
        let repair = Repair::Put(place.key(key), guess);
        self.faults.push(Fault { mistake, repair });
    }

    fn fault(&mut self, place: &Place, message: String, around: &'a Value) {
        let at = self.places.value(place);
        let repair = Repair::Put(place.clone(), placeholder(self.schema, around, at));
        self.faults.push(Fault {
            mistake: Mistake { at, message },
            repair,
        });
    }

    /// What a schema says of its own about values that it does not like.
    fn complaint(&self, around: &'a Value) -> Option<&'a str> {
        let branches = around
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let mut all = branches
            .chain([around])
            .map(|part| resolve(self.schema, part));
        all.find_map(|part| part.get("patternErrorMessage")?.as_str())
    }

    /// What is wrong with the one value at `place`.
    fn sentence(&self, place: &Place, kind: &ValidationErrorKind, around: &'a Value) -> String {
        use ValidationErrorKind as K;
        let name = name_of(place);
        match kind {
            K::Type { kind } => self.wrong_type(place, &names(kind), around),
            K::Enum { options } => self.wrong_word(place, options),
            K::Pattern { .. } => {
                let complaint = self.complaint(around);
                let shown = self.shown(place);
                format!(
                    "{shown} {}",
                    complaint.unwrap_or("is not written as it must be")
                )
            }
            K::MinItems { .. } | K::MinProperties { .. } | K::MinLength { .. } => {
                format!("{name} must not be empty")
            }
            K::MaxLength { limit } => format!("{name} must have at most {limit} characters"),
            K::Minimum { limit } => format!("{name} must be at least {limit}"),
            K::Maximum { limit } => format!("{name} must be at most {limit}"),
            other => format!(
                "{name} breaks the rule \"{}\" of the schema",
                other.keyword()
            ),
        }
    }

    fn wrong_type(&self, place: &Place, expected: &[&'static str], around: &'a Value) -> String {
        if let Some(complaint) = self.complaint(around) {
            return format!("{} {complaint}", name_of(place));
        }
        let found = match self.value.pointer(place.pointer()) {
            Some(Value::Null) | None => "empty",
            Some(Value::Bool(_)) => "true or false",
            Some(Value::Number(_)) => "a number",
            Some(Value::String(_)) => "text",
            Some(Value::Array(_)) => "a list",
            Some(Value::Object(_)) => "a mapping",
        };
        let mut wanted: Vec<&str> = Vec::new();
        for name in expected {
            let words = match *name {
                "null" => "null",
                "boolean" => "true or false",
                "integer" => "a whole number",
                "number" => "a number",
                "string" => "text",
                "array" => "a list",
                _ => "a mapping",
            };
            if !wanted.contains(&words) {
                wanted.push(words);
            }
        }
        format!(
            "{} must be {}, not {found}",
            name_of(place),
            wanted.join(" or ")
        )
    }

    fn wrong_word(&self, place: &Place, options: &Value) -> String {
        let words: Vec<&str> = options
            .as_array()
            .map(|all| all.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let name = name_of(place);
        let written = self.value.pointer(place.pointer()).and_then(Value::as_str);
        let hint = did_you_mean(written.unwrap_or_default(), words.iter().copied());
        let shown = self.shown(place);
        if hint.is_empty() {
            format!(
                "{name} cannot be {shown}; it must be one of {}",
                words.join(", ")
            )
        } else {
            format!("{name} cannot be {shown}{hint}")
        }
    }

    /// The value in quotes, unless it came from the environment and may be a secret.
    fn shown(&self, place: &Place) -> String {
        match self.value.pointer(place.pointer()) {
            Some(Value::String(text)) if !self.places.is_from_environment(place) => {
                format!("\"{text}\"")
            }
            _ => "this value".to_owned(),
        }
    }
}

/// The key, or for an item its whole path.
fn name_of(place: &Place) -> String {
    match place.last() {
        None => "the file".to_owned(),
        Some(last) if last.bytes().all(|byte| byte.is_ascii_digit()) => format!("\"{place}\""),
        Some(last) => format!("\"{last}\""),
    }
}

fn names(kind: &TypeKind) -> Vec<&'static str> {
    match kind {
        TypeKind::Single(one) => vec![one.as_str()],
        TypeKind::Multiple(several) => several.iter().map(|one| one.as_str()).collect(),
    }
}
