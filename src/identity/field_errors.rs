//! Everything that is wrong with what was typed, told together.

/// Fields, each with the first thing that was found wrong with it.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<(String, String)>);

impl FieldErrors {
    /// Notes what is wrong with a field, unless something is known to be.
    pub fn add(&mut self, field: &str, problem: impl Into<String>) {
        if !self.0.iter().any(|(known, _)| known == field) {
            self.0.push((field.to_owned(), problem.into()));
        }
    }

    /// Notes several.
    pub fn extend(&mut self, more: Vec<(String, String)>) {
        for (field, problem) in more {
            self.add(&field, problem);
        }
    }

    /// Takes what was judged to be right, or notes what is wrong with it.
    pub fn check<T, E: Into<String>>(&mut self, field: &str, judged: Result<T, E>) -> Option<T> {
        judged.map_err(|problem| self.add(field, problem)).ok()
    }

    /// Gives what was made of the fields, if nothing is wrong with any.
    ///
    /// # Errors
    /// Each field that is wrong, and how.
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
        let told = problems.into_result(()).unwrap_err();
        assert_eq!(told.len(), 2);
        assert!(told.contains(&("b".to_owned(), "is bad".to_owned())));
    }
}
