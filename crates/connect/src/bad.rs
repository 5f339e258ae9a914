//! Why a record is bad: the path of the column and what is wrong there. Becomes the error of a dead letter.

use std::fmt;

/// The result of reading one value. The error is boxed: it is rare, and results are passed for every value.
pub(crate) type Outcome<T> = Result<T, Box<Bad>>;

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Bad {
    /// From the innermost name outwards, as the error finds its way up.
    path: Vec<String>,
    why: String,
}

/// An error without a path yet.
#[cold]
pub(crate) fn bad(why: impl Into<String>) -> Box<Bad> {
    Box::new(Bad { path: vec![], why: why.into() })
}

/// The text cannot be read as this type.
#[cold]
pub(crate) fn wrong_syntax(type_name: &str, text: &str) -> Box<Bad> {
    bad(format!("invalid input syntax for type {type_name}: \"{}\"", shortened(text)))
}

/// The type cannot hold the value.
#[cold]
pub(crate) fn out_of_range(type_name: &str, text: &str) -> Box<Bad> {
    bad(format!("value \"{}\" is out of range for type {type_name}", shortened(text)))
}

/// A JSON value of a kind that the type does not take.
#[cold]
pub(crate) fn wrong_kind(type_name: &str, kind: &str) -> Box<Bad> {
    bad(format!("{kind} where type {type_name} is expected"))
}

impl Bad {
    /// The error happened inside this field.
    pub(crate) fn within(mut self: Box<Bad>, name: &str) -> Box<Bad> {
        self.path.push(name.to_string());
        self
    }

    /// The error happened inside this element of an array; the first is 1, as SQL counts.
    pub(crate) fn within_element(mut self: Box<Bad>, n: usize) -> Box<Bad> {
        self.path.push(format!("[{n}]"));
        self
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, part) in self.path.iter().rev().enumerate() {
            match idx {
                0 => write!(f, "column \"{part}")?,
                _ if part.starts_with('[') => f.write_str(part)?,
                _ => write!(f, ".{part}")?,
            }
        }
        let separator = if self.path.is_empty() { "" } else { "\": " };
        write!(f, "{separator}{}", self.why)
    }
}

/// The beginning of a text, so that an error stays readable whatever the record holds.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}
