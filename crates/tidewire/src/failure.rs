//! Why the process cannot start or go on: what the user reads before it exits with code 1.

use std::fmt;

use tidewire_types::SqlError;

/// One line, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with its line: lower-case, without a full stop.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None }
    }

    /// Adds a sentence that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Failure {
        let mut failure = Failure::new(match error.detail() {
            Some(detail) => format!("{error} ({detail})"),
            None => error.to_string(),
        });
        failure.hint = error.hint().map(str::to_owned);
        failure
    }
}
