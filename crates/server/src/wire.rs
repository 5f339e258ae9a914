//! One socket: frames in, bytes out.
//!
//! Reading and writing are separate so that the socket can be watched while something is sent, and both can be dropped at
//! any await without losing a byte: input stays in its buffer, output leaves its buffer only as it is written.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Bytes that are sent as soon as they are there; a result is cut into pieces of about this.
pub const SEND_BYTES: usize = 64 << 10;
/// Bytes that a client may send ahead while a statement runs; more stay in its socket.
const AHEAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a startup packet at most, as in PostgreSQL.
const STARTUP_BYTES_MAX: usize = 10_000;
const READ_BYTES: usize = 8 << 10;

/// The two halves of a connection.
pub fn split(socket: TcpStream, message_bytes_max: usize) -> (Input, Output) {
    let (reader, writer) = socket.into_split();
    let input = Input { reader, buffer: BytesMut::new(), message_bytes_max, is_closed: false };
    (input, Output { writer, buffer: BytesMut::new() })
}

/// What comes from the client.
pub struct Input {
    reader: OwnedReadHalf,
    buffer: BytesMut,
    message_bytes_max: usize,
    is_closed: bool,
}

/// What a frame can be instead of a frame.
#[derive(Debug)]
pub enum FrameError {
    /// The connection has ended.
    Closed,
    /// A length that no message has; the stream cannot be followed any more.
    Length(usize),
}

impl Input {
    /// The first packets of a connection: a length and a body, without a type.
    pub async fn startup_packet(&mut self) -> Result<Bytes, FrameError> {
        loop {
            if let Some(length) = self.length_at(0) {
                if !(8..=STARTUP_BYTES_MAX).contains(&length) {
                    return Err(FrameError::Length(length));
                }
                if self.buffer.len() >= length {
                    let mut packet = self.buffer.split_to(length).freeze();
                    packet.advance(4);
                    return Ok(packet);
                }
            }
            self.fill().await?;
        }
    }

    /// Whether the client has sent bytes that it must not have sent yet.
    pub fn has_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next message: its type and body. Dropping the future loses nothing.
    pub async fn message(&mut self) -> Result<(u8, Bytes), FrameError> {
        loop {
            if let (Some(kind), Some(length)) = (self.buffer.first().copied(), self.length_at(1)) {
                if !(4..=self.message_bytes_max).contains(&length) {
                    return Err(FrameError::Length(length));
                }
                if self.buffer.len() > length {
                    let mut message = self.buffer.split_to(length + 1).freeze();
                    message.advance(5);
                    return Ok((kind, message));
                }
            }
            self.fill().await?;
        }
    }

    fn length_at(&self, offset: usize) -> Option<usize> {
        let bytes = self.buffer.get(offset..offset + 4)?;
        let length = u32::from_be_bytes(bytes.try_into().ok()?);
        usize::try_from(length).ok()
    }

    async fn fill(&mut self) -> Result<(), FrameError> {
        if self.is_closed {
            return Err(FrameError::Closed);
        }
        self.buffer.reserve(READ_BYTES);
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(n) if n > 0 => Ok(()),
            _ => {
                self.is_closed = true;
                Err(FrameError::Closed)
            }
        }
    }

    /// Returns when the client has gone. Until then keeps what it sends ahead.
    pub async fn client_gone(&mut self) {
        while self.buffer.len() < AHEAD_BYTES_MAX {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }
}

/// What goes to the client.
pub struct Output {
    writer: OwnedWriteHalf,
    /// Whole messages that wait to be written.
    pub buffer: BytesMut,
}

impl Output {
    /// Writes all that waits. Dropping the future leaves the rest in the buffer.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            if self.writer.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        // A large result leaves its buffer behind; an idle connection keeps none of it.
        if self.buffer.capacity() > 4 * SEND_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Whether there is enough to be sent.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= SEND_BYTES
    }
}
