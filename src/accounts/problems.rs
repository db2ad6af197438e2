//! Everything that is wrong with what was typed, told together.

/// Fields, each with the first thing that was found wrong with it.
#[derive(Debug, Default)]
pub struct Problems(Vec<(String, String)>);

impl Problems {
    /// Notes what is wrong with a field, unless something is known to be.
    pub fn note(&mut self, field: &str, problem: impl Into<String>) {
        if !self.0.iter().any(|(known, _)| known == field) {
            self.0.push((field.to_owned(), problem.into()));
        }
    }

    /// Notes several.
    pub fn join(&mut self, more: Vec<(String, String)>) {
        for (field, problem) in more {
            self.note(&field, problem);
        }
    }

    /// Takes what was judged to be right, or notes what is wrong with it.
    pub fn take<T, E: Into<String>>(&mut self, field: &str, judged: Result<T, E>) -> Option<T> {
        judged.map_err(|problem| self.note(field, problem)).ok()
    }

    /// Gives what was made of the fields, if nothing is wrong with any.
    ///
    /// # Errors
    /// Each field that is wrong, and how.
    pub fn or<T>(self, made: T) -> Result<T, Vec<(String, String)>> {
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
    fn a_field_is_told_once_and_all_fields_are() {
        let mut problems = Problems::default();
        assert_eq!(problems.take("a", Ok::<_, &str>(1)), Some(1));
        assert_eq!(problems.take("b", Err::<u8, _>("is bad")), None);
        problems.note("b", "is worse");
        problems.join(vec![
            ("c".to_owned(), "is bad too".to_owned()),
            ("b".to_owned(), "is the worst".to_owned()),
        ]);
        let told = problems.or(()).unwrap_err();
        assert_eq!(told.len(), 2);
        assert!(told.contains(&("b".to_owned(), "is bad".to_owned())));
    }
}
