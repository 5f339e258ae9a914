//! The beginning of a connection: encryption requests, cancel requests, the protocol's version, who the client is.
//!
//! Any user is let in from loopback without a password; nobody from elsewhere. Bytes that are no Postgres protocol get
//! no answer, as in PostgreSQL.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use tidewire_engine::Session;
use tidewire_types::{SqlError, SqlState};

use crate::backend;
use crate::parameter::utf8;
use crate::wire::{Input, Output};

/// The one database of a server.
pub const DATABASE: &str = "tidewire";

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// What the first packets asked for.
pub enum Opening {
    /// A session.
    Session(Greeting),
    /// To cancel what another connection runs.
    Cancel {
        /// The other connection's number.
        id: i32,
        /// Its key.
        key: Bytes,
    },
    /// Nothing that this server speaks, or the client went away.
    Nothing,
    /// To be refused with this error.
    Refused(SqlError),
}

/// A client that wants a session.
#[derive(Debug)]
pub struct Greeting {
    /// Who it says it is.
    pub user: String,
    /// Protocol 3.2: longer cancel keys.
    pub has_long_keys: bool,
    /// Settings to begin with.
    pub settings: Vec<(String, String)>,
}

/// Reads the first packets of a connection and answers those that come before a session.
pub async fn open(input: &mut Input, output: &mut Output) -> Opening {
    loop {
        let Ok(mut packet) = input.startup_packet().await else {
            return Opening::Nothing;
        };
        match packet.get_u32() {
            SSL_REQUEST | GSS_REQUEST => {
                // Bytes sent ahead of the answer could be a stranger's, put in front of an encrypted connection.
                if input.has_bytes() {
                    return Opening::Nothing;
                }
                output.buffer.extend_from_slice(b"N");
                if output.flush().await.is_err() {
                    return Opening::Nothing;
                }
            }
            CANCEL_REQUEST => {
                return match packet.try_get_i32() {
                    Ok(id) => Opening::Cancel { id, key: packet },
                    Err(_) => Opening::Nothing,
                };
            }
            version => return greet(version, packet, output),
        }
    }
}

fn greet(version: u32, packet: Bytes, output: &mut Output) -> Opening {
    let (major, minor) = (version >> 16, version & 0xffff);
    if !(1..=9).contains(&major) {
        return Opening::Nothing;
    }
    if major != 3 {
        return Opening::Refused(SqlError::unsupported(format!("frontend protocol {major}.{minor}")));
    }
    let mut parameters = match read_parameters(&packet) {
        Ok(parameters) => parameters,
        Err(error) => return Opening::Refused(error),
    };
    let unknown: Vec<String> = parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    parameters.retain(|name, _| !name.starts_with("_pq_."));
    let spoken = if minor >= 2 { 2 } else { 0 };
    if spoken != minor || !unknown.is_empty() {
        backend::negotiate(&mut output.buffer, (3 << 16) | spoken.cast_signed(), unknown);
    }
    match identify(parameters) {
        Ok((user, settings)) => Opening::Session(Greeting { user, has_long_keys: spoken == 2, settings }),
        Err(error) => Opening::Refused(error),
    }
}

/// Names and values, each ended by a zero byte, and one more zero byte.
fn read_parameters(mut packet: &[u8]) -> Result<BTreeMap<String, String>, SqlError> {
    let invalid = || SqlError::new(SqlState::ProtocolViolation, "invalid startup packet layout");
    let mut parameters = BTreeMap::new();
    loop {
        let name = take_string(&mut packet).ok_or_else(invalid)?;
        if name.is_empty() {
            return match packet.is_empty() {
                true => Ok(parameters),
                false => Err(invalid()),
            };
        }
        let value = take_string(&mut packet).ok_or_else(invalid)?;
        parameters.insert(utf8(name)?.to_owned(), utf8(value)?.to_owned());
    }
}

fn take_string<'a>(packet: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = packet.iter().position(|b| *b == 0)?;
    let (text, rest) = packet.split_at_checked(end)?;
    *packet = rest.get(1..)?;
    Some(text)
}

/// The user, and the settings among the other parameters.
fn identify(mut parameters: BTreeMap<String, String>) -> Result<(String, Vec<(String, String)>), SqlError> {
    let user = parameters
        .remove("user")
        .filter(|user| !user.is_empty())
        .ok_or_else(|| SqlError::new(SqlState::InvalidAuthorization, "no user name specified in startup packet"))?;
    let database = parameters.remove("database").filter(|name| !name.is_empty());
    if let Some(other) = database.filter(|name| name != DATABASE) {
        return Err(SqlError::new(SqlState::InvalidCatalogName, format!("database \"{other}\" does not exist"))
            .with_hint(format!("This server has one database, \"{DATABASE}\".")));
    }
    if parameters.remove("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0")) {
        return Err(SqlError::unsupported("replication"));
    }
    let mut settings = vec![];
    if let Some(options) = parameters.remove("options") {
        settings.extend(read_options(&options)?);
    }
    settings.extend(parameters);
    Ok((user, settings))
}

/// `-c name=value`, `--name=value`; a backslash keeps a blank.
fn read_options(options: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words = vec![];
    let mut word = String::new();
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let mut settings = vec![];
    let mut words = words.into_iter().filter(|w| !w.is_empty());
    while let Some(word) = words.next() {
        let invalid = || {
            SqlError::new(SqlState::SyntaxError, format!("invalid command-line argument for server process: {word}"))
        };
        let assignment = match word.strip_prefix("-c") {
            Some("") => words.next().ok_or_else(invalid)?,
            Some(rest) => rest.to_owned(),
            None => word.strip_prefix("--").ok_or_else(invalid)?.to_owned(),
        };
        let (name, value) = assignment.split_once('=').ok_or_else(invalid)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

/// What clients are told at the start: the name, and the value where the session has no setting of that name.
const REPORTED: &[(&str, &str)] = &[
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("application_name", ""),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
];

/// The version that clients see: they take features from its first number.
pub fn server_version() -> String {
    format!("15.0 (Tidewire {})", env!("CARGO_PKG_VERSION"))
}

/// Writes the settings that clients are told of.
pub fn report(output: &mut Output, session: &Session, user: &str) {
    let out = &mut output.buffer;
    backend::parameter_status(out, "server_version", &server_version());
    backend::parameter_status(out, "session_authorization", user);
    backend::parameter_status(out, "is_superuser", "on");
    for (name, default) in REPORTED {
        let value = session.setting(name);
        backend::parameter_status(out, name, value.as_deref().unwrap_or(default));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = vec![];
        for (name, value) in pairs {
            packet.extend(format!("{name}\0{value}\0").bytes());
        }
        packet.push(0);
        packet
    }

    fn read(pairs: &[(&str, &str)]) -> Result<(String, Vec<(String, String)>), SqlError> {
        identify(read_parameters(&packet(pairs))?)
    }

    #[test]
    fn a_greeting_is_read() {
        let (user, settings) = read(&[
            ("user", "ada"),
            ("database", "tidewire"),
            ("application_name", "psql"),
            ("options", "-c statement_timeout=5s --search-path=a\\ b -cTimeZone=UTC"),
        ])
        .unwrap();
        assert_eq!(user, "ada");
        let settings: Vec<String> = settings.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(settings, ["statement_timeout=5s", "search_path=a b", "TimeZone=UTC", "application_name=psql"]);
    }

    #[test]
    fn a_wrong_greeting_says_why() {
        assert_eq!(read(&[("user", "a"), ("database", "shop")]).unwrap_err().state().code(), "3D000");
        assert_eq!(read(&[("database", "tidewire")]).unwrap_err().state().code(), "28000");
        assert_eq!(read(&[("user", "a"), ("replication", "true")]).unwrap_err().state().code(), "0A000");
        assert_eq!(read_parameters(b"user\0a\0").unwrap_err().state().code(), "08P01");
        assert_eq!(read_parameters(b"user\0a\0\0more").unwrap_err().state().code(), "08P01");
    }
}
