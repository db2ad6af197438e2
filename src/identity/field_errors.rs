//! Field errors, reported together.

/// Fields, each with its first problem.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<(String, String)>);

impl FieldErrors {
    /// Records a field's problem, unless it already has one.
    pub fn add(&mut self, field: &str, problem: impl Into<String>) {
        if !self.0.iter().any(|(known, _)| known == field) {
            self.0.push((field.to_owned(), problem.into()));
        }
    }

    /// Records several problems.
    pub fn extend(&mut self, more: Vec<(String, String)>) {
        for (field, problem) in more {
            self.add(&field, problem);
        }
    }

    /// Returns a valid value, or records the field's problem.
    pub fn check<T, E: Into<String>>(&mut self, field: &str, judged: Result<T, E>) -> Option<T> {
        judged.map_err(|problem| self.add(field, problem)).ok()
    }

    /// Returns `made` if no field has a problem.
    ///
    /// # Errors
    /// Each invalid field and its problem.
    pub fn into_result<T>(self, made: T) -> Result<T, Vec<(String, String)>> {
        if self.0.is_empty() {
            Ok(made)
        } else {
            Err(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn first_error_of_every_field_is_reported() {
        let mut problems = FieldErrors::default();
        assert_eq!(problems.check("a", Ok::<_, &str>(1)), Some(1));
        assert_eq!(problems.check("b", Err::<u8, _>("is bad")), None);
        problems.add("b", "is worse");
        problems.extend(vec![
            ("c".to_owned(), "is bad too".to_owned()),
            ("b".to_owned(), "is the worst".to_owned()),
        ]);
        let errors = problems.into_result(()).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors.contains(&("b".to_owned(), "is bad".to_owned())));
    }
}
