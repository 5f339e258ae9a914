//! The options of `WITH (..)` and of `FORMAT .. ENCODE .. (..)`, as connectors and formats declare and read them.

use std::collections::BTreeMap;

use tidewire_types::{Result, SqlError, SqlState, closest};

/// One option that a connector or format understands. Help, validation and "did you mean" derive from it.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name as users write it, lower-case; one that ends in `*` stands for all names with that beginning.
    pub name: &'static str,
    /// Whether a statement without it is wrong.
    pub required: bool,
    /// One sentence: what it does, its values, its default.
    pub help: &'static str,
}

/// The options of one statement: lower-case names, values as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// From pairs; names are made lower-case. Errors: `42601` for a name given twice.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Options> {
        let mut options = BTreeMap::new();
        for (name, value) in pairs {
            let name = name.to_lowercase();
            if options.contains_key(&name) {
                return Err(SqlError::new(SqlState::SyntaxError, format!("option \"{name}\" is given twice")));
            }
            options.insert(name, value);
        }
        Ok(Options(options))
    }

    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of an option that must be there. Errors: `22023`.
    pub fn require(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| {
            SqlError::new(SqlState::InvalidParameterValue, format!("option \"{name}\" is missing"))
                .with_hint(format!("Add {name} = '..' to the WITH clause."))
        })
    }

    /// The value parsed, or `default`. Errors: `22023`.
    pub fn parse_or<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|_| self.invalid(name, &format!("\"{text}\" is not valid"))),
        }
    }

    /// An error about one option: `22023`.
    pub fn invalid(&self, name: &str, why: &str) -> SqlError {
        SqlError::new(SqlState::InvalidParameterValue, format!("invalid value for option \"{name}\": {why}"))
    }

    /// The options whose names begin with `prefix`, without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    /// All options, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Refuses a name that none of `specs` declares (`22023`, with the closest as hint) and a missing required one.
    pub fn check(&self, specs: &[&[OptionSpec]]) -> Result<()> {
        let all = || specs.iter().flat_map(|s| s.iter());
        for name in self.0.keys() {
            let known = all().any(|s| match s.name.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => s.name == name,
            });
            if !known {
                let error =
                    SqlError::new(SqlState::InvalidParameterValue, format!("option \"{name}\" is not recognized"));
                return Err(match closest(name, all().map(|s| s.name)) {
                    Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
                    None => error,
                });
            }
        }
        all().filter(|s| s.required).try_for_each(|s| self.require(s.name).map(|_| ()))
    }
}
