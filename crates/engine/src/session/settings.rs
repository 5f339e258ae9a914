//! A session's settings: what SET, SHOW and a client's startup packet name.

use std::collections::BTreeMap;

use arrow::array::timezone::Tz;
use tidewire_types::{Result, SqlError, SqlState, closest};

/// One setting that there is.
#[derive(Debug)]
struct Known {
    /// As clients are told it.
    name: &'static str,
    default: &'static str,
    kind: ValueKind,
    /// Whether clients hear of a change (ParameterStatus).
    reported: bool,
    description: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum ValueKind {
    Text,
    Bool,
    /// One of these words; those for yes and no stand for on and off.
    Choice(&'static [&'static str]),
    Integer,
    /// A number of milliseconds, or with a unit (`5s`).
    Milliseconds,
    TimeZone,
    /// Cannot be changed.
    Fixed,
}

const fn known(name: &'static str, default: &'static str, kind: ValueKind, description: &'static str) -> Known {
    Known { name, default, kind, reported: false, description }
}

const fn reported(name: &'static str, default: &'static str, kind: ValueKind, description: &'static str) -> Known {
    Known { name, default, kind, reported: true, description }
}

use ValueKind::{Bool, Choice, Fixed, Integer, Milliseconds, Text, TimeZone};

static KNOWN: &[Known] = &[
    reported("application_name", "", Text, "Name of the application that is connected."),
    known("background_ddl", "off", Bool, "CREATE MATERIALIZED VIEW returns at once and the view is built by itself."),
    known("bytea_output", "hex", Text, "Output format of bytea."),
    known("check_function_bodies", "on", Bool, "Accepted, without effect."),
    reported("client_encoding", "UTF8", Text, "Encoding of the client; always UTF8."),
    known("client_min_messages", "notice", Text, "Least severe message that is sent."),
    reported("DateStyle", "ISO, MDY", Text, "Format of dates; the output is always ISO."),
    known("default_transaction_isolation", "repeatable read", Text, "Accepted, without effect."),
    known("default_transaction_read_only", "off", Bool, "Accepted, without effect."),
    known("extra_float_digits", "1", Integer, "Accepted; floats are always shown exactly."),
    known("idle_in_transaction_session_timeout", "0", Milliseconds, "Accepted, without effect."),
    reported("in_hot_standby", "off", Fixed, "Whether the server is read-only."),
    reported("integer_datetimes", "on", Fixed, "Times are integers on the wire."),
    reported("IntervalStyle", "postgres", Text, "Format of intervals; the output is always postgres."),
    reported("is_superuser", "on", Fixed, "Whether the user is a superuser."),
    known("lc_collate", "C", Fixed, "Order of text."),
    known("lc_ctype", "C", Fixed, "Kinds of characters."),
    known("lc_messages", "C", Text, "Language of messages."),
    known("lc_monetary", "C", Text, "Accepted, without effect."),
    known("lc_numeric", "C", Text, "Accepted, without effect."),
    known("lc_time", "C", Text, "Accepted, without effect."),
    known("lock_timeout", "0", Milliseconds, "Accepted; nothing waits for locks."),
    known("max_identifier_length", "63", Fixed, "Longest identifier."),
    known("row_security", "on", Bool, "Accepted, without effect."),
    known("search_path", "\"$user\", public", Text, "Schemas that unqualified names are looked up in."),
    reported("server_encoding", "UTF8", Fixed, "Encoding of the server."),
    reported("server_version", "15.0", Fixed, "Version of PostgreSQL that the server follows."),
    known("server_version_num", "150000", Fixed, "The same as a number."),
    reported("session_authorization", "tidewire", Text, "The session's user."),
    reported("standard_conforming_strings", "on", Fixed, "A backslash in '..' is an ordinary character."),
    known("statement_timeout", "0", Milliseconds, "Longest time that a statement may take; 0: any."),
    known(
        "synchronous_commit",
        "on",
        Choice(&["local", "remote_write", "remote_apply", "on", "off"]),
        "Whether a write is answered only when it is durable; off: a crash may lose the last moments.",
    ),
    reported("TimeZone", "UTC", TimeZone, "Time zone in which timestamptz values are shown."),
    known(
        "transaction_isolation",
        "repeatable read",
        Text,
        "Isolation of a statement: one snapshot, and 40001 when its rows changed meanwhile.",
    ),
    known("transaction_read_only", "off", Bool, "Accepted, without effect."),
    known("work_mem", "4096", Text, "Accepted, without effect."),
    known("xmloption", "content", Text, "Accepted, without effect."),
];

fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.name.eq_ignore_ascii_case(name))
}

/// The values of one session.
#[derive(Debug, Default)]
pub struct SessionSettings {
    // By lower-case name; only what differs from the default.
    values: BTreeMap<String, String>,
    // What a LOCAL setting hid until the transaction ends.
    before_local: Vec<(String, Option<String>)>,
    changed: Vec<&'static Known>,
    version: u64,
}

impl SessionSettings {
    /// A value, as SHOW gives it. Errors: `42704`.
    pub fn show(&self, name: &str) -> Result<String> {
        self.get(name).ok_or_else(|| unrecognized(name))
    }

    /// A value, or None where there is no such setting.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.values.get(&name.to_lowercase()) {
            Some(value) => Some(value.clone()),
            None => find(name).map(|k| k.default.to_string()),
        }
    }

    /// Whether a boolean setting is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "on")
    }

    /// Sets a value; None: its default. Errors: `42704` for no such setting, `22023` for no such value, `55000` for
    /// one that is fixed.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        let key = name.to_lowercase();
        // A name with a dot is somebody's own setting, as in PostgreSQL.
        let known = find(name);
        if known.is_none() && !name.contains('.') {
            return Err(unrecognized(name));
        }
        let value = match (known, value) {
            (Some(known), Some(value)) => Some(known.check(value)?),
            (None, value) => value.map(str::to_string),
            (_, None) => None,
        };
        if local {
            self.before_local.push((key.clone(), self.values.get(&key).cloned()));
        }
        self.put(key, value);
        Ok(())
    }

    fn put(&mut self, key: String, value: Option<String>) {
        self.version += 1;
        let before = self.values.get(&key).cloned();
        match &value {
            Some(value) => self.values.insert(key.clone(), value.clone()),
            None => self.values.remove(&key),
        };
        if before != value
            && let Some(known) = find(&key).filter(|k| k.reported)
        {
            self.changed.push(known);
        }
    }

    /// A transaction has ended: what was LOCAL to it goes.
    pub fn end_transaction(&mut self) {
        for (key, value) in std::mem::take(&mut self.before_local).into_iter().rev() {
            self.put(key, value);
        }
    }

    /// Back to the defaults.
    pub fn reset_all(&mut self) {
        for key in self.values.keys().cloned().collect::<Vec<_>>() {
            if key != "session_authorization" {
                self.put(key, None);
            }
        }
    }

    /// Settings that clients hear of and that changed since the last call: name and value.
    pub fn take_reported(&mut self) -> Vec<(String, String)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|k| Some((k.name.to_string(), self.get(k.name)?))).collect()
    }

    /// A number that grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Name, value and description of each, as SHOW ALL gives them.
    pub fn all(&self) -> Vec<(String, String, String)> {
        let each =
            KNOWN.iter().filter_map(|k| Some((k.name.to_string(), self.get(k.name)?, k.description.to_string())));
        each.collect()
    }

    /// The schemas that unqualified names are looked up in; the system's own come first, as in PostgreSQL.
    pub fn search_path(&self) -> Vec<String> {
        let path = self.get("search_path").unwrap_or_default();
        let schemas = path.split(',').map(|s| s.trim().trim_matches('"').to_string());
        let schemas = schemas.filter(|s| !s.is_empty() && s != "$user" && s != "pg_catalog");
        std::iter::once("pg_catalog".to_string()).chain(schemas).collect()
    }
}

impl Known {
    /// The value as it is kept.
    fn check(&self, value: &str) -> Result<String> {
        let invalid = |hint: &str| {
            let message = format!("invalid value for parameter \"{}\": \"{value}\"", self.name);
            let error = SqlError::new(SqlState::InvalidParameterValue, message);
            if hint.is_empty() { error } else { error.with_hint(hint) }
        };
        match self.kind {
            Fixed if value == self.default => Ok(value.to_string()),
            Fixed => {
                let message = format!("parameter \"{}\" cannot be changed", self.name);
                Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message))
            }
            Bool => on_or_off(value).map(str::to_string).ok_or_else(|| invalid("It is on or off.")),
            Choice(words) => {
                let word = words.iter().find(|word| word.eq_ignore_ascii_case(value)).copied();
                let word = word.or_else(|| on_or_off(value));
                word.map(str::to_string).ok_or_else(|| invalid(&format!("Available values: {}.", words.join(", "))))
            }
            Integer => value.parse::<i64>().map(|n| n.to_string()).map_err(|_| invalid("It is an integer.")),
            Milliseconds => match milliseconds(value) {
                Some(ms) => Ok(duration_text(ms)),
                None => Err(invalid("It is a number of milliseconds, or one with a unit: us, ms, s, min, h, d.")),
            },
            TimeZone => time_zone(value).ok_or_else(|| invalid("")),
            Text if self.name == "client_encoding" => match value.to_lowercase().replace('-', "").as_str() {
                "utf8" | "unicode" => Ok("UTF8".to_string()),
                _ => Err(invalid("The only encoding is UTF8.")),
            },
            Text => Ok(value.to_string()),
        }
    }
}

fn on_or_off(value: &str) -> Option<&'static str> {
    match value.to_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Some("on"),
        "off" | "false" | "no" | "0" | "f" | "n" => Some("off"),
        _ => None,
    }
}

/// A zone's name as it is shown; None for no such zone.
fn time_zone(value: &str) -> Option<String> {
    match value.to_lowercase().as_str() {
        "utc" | "gmt" | "etc/utc" | "zulu" | "local" | "default" => Some("UTC".to_string()),
        _ => value.parse::<Tz>().ok().map(|_| value.to_string()),
    }
}

/// A number of milliseconds in the largest unit that shows it whole, as SHOW does; 0 has none.
fn duration_text(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    match UNITS.iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0".to_string(),
        None => format!("{ms}ms"),
    }
}

/// A duration as PostgreSQL's settings write it, in milliseconds.
pub fn milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1e3,
        "min" => 60e3,
        "h" => 3600e3,
        "d" => 86400e3,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some((number * factor).round() as u64)
}

fn unrecognized(name: &str) -> SqlError {
    let error = SqlError::new(SqlState::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""));
    match closest(name, KNOWN.iter().map(|k| k.name)) {
        Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_reported() {
        let mut settings = SessionSettings::default();
        settings.set("timezone", Some("europe/amsterdam"), false).unwrap_err();
        settings.set("TIMEZONE", Some("Europe/Amsterdam"), false).unwrap();
        assert_eq!(settings.take_reported(), [("TimeZone".to_string(), "Europe/Amsterdam".to_string())]);
        assert_eq!(settings.set("statement_timout", Some("1"), false).unwrap_err().state(), SqlState::UndefinedObject);
        assert_eq!(
            settings.set("statement_timeout", Some("soon"), false).unwrap_err().state(),
            SqlState::InvalidParameterValue
        );
        settings.set("my.own", Some("x"), false).unwrap();
        assert_eq!(settings.show("my.own").unwrap(), "x");
    }

    #[test]
    fn a_local_value_ends_with_its_transaction() {
        let mut settings = SessionSettings::default();
        settings.set("background_ddl", Some("true"), true).unwrap();
        assert!(settings.is_on("background_ddl"));
        settings.end_transaction();
        assert!(!settings.is_on("background_ddl"));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(milliseconds("5s"), Some(5000));
        assert_eq!(milliseconds("250"), Some(250));
        assert_eq!(milliseconds("1.5 min"), Some(90_000));
        assert_eq!(milliseconds("-1"), None);
        assert_eq!([0, 250, 1000, 90_000, 120_000].map(duration_text), ["0", "250ms", "1s", "90s", "2min"]);
    }
}
