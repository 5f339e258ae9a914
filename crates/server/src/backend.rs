//! What the server says besides rows, as pgwire encodes it.

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};
use tidewire_engine::{Notice, Transaction};
use tidewire_types::{Result, SqlError, SqlType};
use tracing::error;

use crate::encode::{self, Format};
use crate::oid;

fn put(out: &mut BytesMut, message: Backend) {
    let start = out.len();
    // Encoding fails only for a message that is too long; half of one must not be sent.
    if let Err(reason) = message.encode(out) {
        out.truncate(start);
        error!(%reason, "dropped a message that could not be encoded");
    }
}

/// ErrorResponse. `severity`: `ERROR`, or `FATAL` for one that ends the connection.
pub fn error(out: &mut BytesMut, severity: &str, error: &SqlError) {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', error.state().code().to_owned()),
        (b'M', text(error.message())),
    ];
    fields.extend(error.detail().map(|detail| (b'D', text(detail))));
    fields.extend(error.hint().map(|hint| (b'H', text(hint))));
    fields.extend(error.context().map(|context| (b'W', text(context))));
    fields.extend(error.position().map(|position| (b'P', position.to_string())));
    put(out, Backend::ErrorResponse(ErrorResponse::new(fields)));
}

/// NoticeResponse.
pub fn notice(out: &mut BytesMut, notice: &Notice) {
    let fields = vec![
        (b'S', notice.severity.to_owned()),
        (b'V', notice.severity.to_owned()),
        (b'C', notice.code.to_owned()),
        (b'M', text(&notice.message)),
    ];
    put(out, Backend::NoticeResponse(NoticeResponse::new(fields)));
}

/// A zero byte would end a string of the protocol early.
fn text(value: &str) -> String {
    value.replace('\0', "\u{fffd}")
}

/// RowDescription.
pub fn row_description(out: &mut BytesMut, columns: &[(String, SqlType)], formats: &[Format]) {
    let fields = columns.iter().zip(formats).map(|((name, t), format)| {
        FieldDescription::new(text(name), 0, 0, oid::oid(t), oid::size(t), oid::modifier(t), format.code())
    });
    put(out, Backend::RowDescription(RowDescription::new(fields.collect())));
}

/// ParameterDescription.
pub fn parameter_description(out: &mut BytesMut, types: &[SqlType]) {
    let types = types.iter().map(oid::oid).collect();
    put(out, Backend::ParameterDescription(ParameterDescription::new(types)));
}

/// NoData.
pub fn no_data(out: &mut BytesMut) {
    put(out, Backend::NoData(NoData::new()));
}

/// CopyOutResponse: so many columns, all in text.
pub fn copy_out(out: &mut BytesMut, n_columns: usize) -> Result<()> {
    let n = i16::try_from(n_columns).map_err(|_| encode::too_many_columns())?;
    put(out, Backend::CopyOutResponse(CopyOutResponse::new(0, n, vec![Format::Text.code(); n_columns])));
    Ok(())
}

/// CopyInResponse: so many columns, all in text.
pub fn copy_in(out: &mut BytesMut, n_columns: usize) -> Result<()> {
    let n = i16::try_from(n_columns).map_err(|_| encode::too_many_columns())?;
    put(out, Backend::CopyInResponse(CopyInResponse::new(0, n, vec![Format::Text.code(); n_columns])));
    Ok(())
}

/// CopyDone.
pub fn copy_done(out: &mut BytesMut) {
    put(out, Backend::CopyDone(CopyDone::new()));
}

/// CommandComplete.
pub fn complete(out: &mut BytesMut, tag: &str) {
    put(out, Backend::CommandComplete(CommandComplete::new(tag.to_owned())));
}

/// EmptyQueryResponse.
pub fn empty(out: &mut BytesMut) {
    put(out, Backend::EmptyQueryResponse(EmptyQueryResponse::new()));
}

/// ReadyForQuery.
pub fn ready(out: &mut BytesMut, transaction: Transaction) {
    let status = match transaction {
        Transaction::Idle => TransactionStatus::Idle,
        Transaction::Open => TransactionStatus::Transaction,
        Transaction::Failed => TransactionStatus::Error,
    };
    put(out, Backend::ReadyForQuery(ReadyForQuery::new(status)));
}

/// ParseComplete.
pub fn parse_complete(out: &mut BytesMut) {
    put(out, Backend::ParseComplete(ParseComplete::new()));
}

/// BindComplete.
pub fn bind_complete(out: &mut BytesMut) {
    put(out, Backend::BindComplete(BindComplete::new()));
}

/// CloseComplete.
pub fn close_complete(out: &mut BytesMut) {
    put(out, Backend::CloseComplete(CloseComplete::new()));
}

/// PortalSuspended.
pub fn portal_suspended(out: &mut BytesMut) {
    put(out, Backend::PortalSuspended(PortalSuspended::new()));
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    put(out, Backend::Authentication(Authentication::Ok));
}

/// ParameterStatus.
pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    put(out, Backend::ParameterStatus(ParameterStatus::new(name.to_owned(), text(value))));
}

/// BackendKeyData.
pub fn key_data(out: &mut BytesMut, id: i32, key: bytes::Bytes) {
    put(out, Backend::BackendKeyData(BackendKeyData::new(id, SecretKey::Bytes(key))));
}

/// NegotiateProtocolVersion: the version that will be spoken, and the options that are not known here.
pub fn negotiate(out: &mut BytesMut, version: i32, unknown: Vec<String>) {
    put(out, Backend::NegotiateProtocolVersion(NegotiateProtocolVersion::new(version, unknown)));
}
