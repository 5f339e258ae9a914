//! What clients send, decoded.
//!
//! pgwire's own decoders read past the end of a message that lies about its lengths; every read here is checked, and a
//! message that does not add up is `08P01`. Invariant: no input panics.

use bytes::{Buf, Bytes};
use tidewire_types::{Result, SqlError, SqlState};

use crate::encode::Format;
use crate::parameter::utf8;

/// A message of an established connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Simple query.
    Query(String),
    /// Prepares a statement under a name.
    Parse {
        /// Name of the statement; empty: the unnamed one.
        name: String,
        /// Its text.
        query: String,
        /// OIDs of its first parameters; 0: the server decides.
        types: Vec<u32>,
    },
    /// Makes a portal of a statement and values.
    Bind(Bind),
    /// Asks for the shape of a statement or portal.
    Describe(Target),
    /// Runs a portal for so many rows; 0: all.
    Execute {
        /// Name of the portal.
        portal: String,
        /// Rows at most.
        n_rows_max: u32,
    },
    /// Forgets a statement or portal.
    Close(Target),
    /// Ends an extended query.
    Sync,
    /// Asks for what is in the buffer.
    Flush,
    /// Ends the connection.
    Terminate,
    /// COPY data, end or failure outside of a COPY: ignored, as in PostgreSQL.
    Copy,
}

/// What Describe and Close name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// Bind.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    /// Name of the portal; empty: the unnamed one.
    pub portal: String,
    /// Name of the statement.
    pub statement: String,
    /// Formats of the values: none (all text), one for all, or one each.
    pub formats: Vec<Format>,
    /// The values; None is NULL.
    pub values: Vec<Option<Bytes>>,
    /// Formats of the result's columns, likewise.
    pub result_formats: Vec<Format>,
}

/// Decodes one message. Errors: `08P01`; `22021` for text that is not UTF-8.
pub fn decode(kind: u8, body: Bytes) -> Result<Message> {
    let mut reader = Reader(body);
    let message = match kind {
        b'Q' => Message::Query(reader.string()?),
        b'P' => {
            let (name, query) = (reader.string()?, reader.string()?);
            Message::Parse { name, query, types: reader.list(|r| r.u32())? }
        }
        b'B' => Message::Bind(Bind {
            portal: reader.string()?,
            statement: reader.string()?,
            formats: reader.list(|r| r.format())?,
            values: reader.list(|r| r.value())?,
            result_formats: reader.list(|r| r.format())?,
        }),
        b'D' => Message::Describe(reader.target()?),
        b'C' => Message::Close(reader.target()?),
        b'E' => Message::Execute {
            portal: reader.string()?,
            // A negative count means all, like 0.
            n_rows_max: i32::from_be_bytes(reader.u32()?.to_be_bytes()).max(0).unsigned_abs(),
        },
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'X' => Message::Terminate,
        b'd' | b'c' | b'f' => return Ok(Message::Copy),
        other => {
            return Err(SqlError::new(SqlState::ProtocolViolation, format!("invalid frontend message type {other}")));
        }
    };
    match reader.0.is_empty() {
        true => Ok(message),
        false => Err(violation()),
    }
}

/// Why the client gave a COPY up.
pub fn copy_failure(body: Bytes) -> Result<String> {
    Reader(body).string()
}

/// Whether errors of a message are followed by a wait for Sync.
pub fn is_extended(kind: u8) -> bool {
    matches!(kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H')
}

/// Whether there is such a message; after one that there is not, the stream cannot be trusted.
pub fn is_known(kind: u8) -> bool {
    matches!(kind, b'Q' | b'S' | b'X' | b'd' | b'c' | b'f') || is_extended(kind)
}

fn violation() -> SqlError {
    SqlError::new(SqlState::ProtocolViolation, "invalid message format")
}

struct Reader(Bytes);

impl Reader {
    fn string(&mut self) -> Result<String> {
        let end = self.0.iter().position(|b| *b == 0).ok_or_else(violation)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        utf8(&text).map(str::to_owned)
    }

    fn u16(&mut self) -> Result<u16> {
        self.0.try_get_u16().map_err(|_| violation())
    }

    fn u32(&mut self) -> Result<u32> {
        self.0.try_get_u32().map_err(|_| violation())
    }

    fn format(&mut self) -> Result<Format> {
        let code = self.u16()?;
        Format::from_code(i16::try_from(code).unwrap_or(-1))
    }

    fn value(&mut self) -> Result<Option<Bytes>> {
        let length = i32::from_be_bytes(self.u32()?.to_be_bytes());
        match usize::try_from(length) {
            Err(_) if length == -1 => Ok(None),
            Ok(length) if length <= self.0.len() => Ok(Some(self.0.split_to(length))),
            _ => Err(violation()),
        }
    }

    fn target(&mut self) -> Result<Target> {
        let kind = self.0.try_get_u8().map_err(|_| violation())?;
        match kind {
            b'S' => Ok(Target::Statement(self.string()?)),
            b'P' => Ok(Target::Portal(self.string()?)),
            _ => Err(violation()),
        }
    }

    /// A count of 16 bits, then so many items.
    fn list<T>(&mut self, item: impl Fn(&mut Reader) -> Result<T>) -> Result<Vec<T>> {
        let n = self.u16()?;
        // Not allocated ahead: the count is only what the client says.
        (0..n).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bind_is_read() {
        let mut body = b"p\0s\0".to_vec();
        body.extend([0, 1, 0, 1, 0, 2, 0, 0, 0, 2, b'h', b'i', 255, 255, 255, 255, 0, 0]);
        let Message::Bind(bind) = decode(b'B', body.into()).unwrap() else { panic!("not a bind") };
        assert_eq!((bind.portal.as_str(), bind.statement.as_str()), ("p", "s"));
        assert_eq!(bind.formats, [Format::Binary]);
        assert_eq!(bind.values, [Some(Bytes::from("hi")), None]);
        assert_eq!(bind.result_formats, []);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for (kind, body) in [
            (b'Q', &b"no end"[..]),
            (b'P', b"\0select 1\0\0\x05"),
            (b'B', b"\0\0\0\0\0\x01\0\0\0\xff"),
            (b'E', b"\0\0\0"),
            (b'D', b"Zx\0"),
            (b'D', b""),
            (b'S', b"more"),
        ] {
            let error = decode(kind, Bytes::copy_from_slice(body)).unwrap_err();
            assert_eq!(error.state(), SqlState::ProtocolViolation, "{}", kind as char);
        }
        assert_eq!(decode(b'Q', Bytes::from_static(b"\xff\0")).unwrap_err().state().code(), "22021");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..64)) {
            // The property is that it returns.
            let _ = decode(kind, body.into());
        }
    }
}
