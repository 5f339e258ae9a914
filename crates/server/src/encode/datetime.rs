//! Dates, times, intervals and uuids as PostgreSQL writes them (DateStyle ISO, IntervalStyle postgres).
//!
//! Years before 1 are shown with BC. The extreme values stand for `infinity` and `-infinity`, as in PostgreSQL.

use arrow::array::timezone::Tz;
use arrow::datatypes::IntervalMonthDayNano;
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Offset, TimeZone};

use super::number::write_integer;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i32 = 10_957;

pub(super) fn date_to_pg(days: i32) -> i32 {
    match days {
        i32::MAX | i32::MIN => days,
        days => days.saturating_sub(EPOCH_DAYS),
    }
}

pub(super) fn timestamp_to_pg(micros: i64) -> i64 {
    match micros {
        i64::MAX | i64::MIN => micros,
        micros => micros.saturating_sub(i64::from(EPOCH_DAYS) * DAY),
    }
}

/// Days since 2000-01-01 as days since 1970-01-01.
pub fn date_from_pg(days: i32) -> i32 {
    match days {
        i32::MAX | i32::MIN => days,
        days => days.saturating_add(EPOCH_DAYS),
    }
}

/// Microseconds since 2000-01-01 as microseconds since 1970-01-01.
pub fn timestamp_from_pg(micros: i64) -> i64 {
    match micros {
        i64::MAX | i64::MIN => micros,
        micros => micros.saturating_add(i64::from(EPOCH_DAYS) * DAY),
    }
}

/// Year, month and day of a day since 1970-01-01 (Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn write_two(out: &mut BytesMut, value: i64) {
    out.put_u8(b'0' + (value / 10 % 10) as u8);
    out.put_u8(b'0' + (value % 10) as u8);
}

/// Writes the date and tells whether ` BC` must follow.
fn write_civil(out: &mut BytesMut, days: i64) -> bool {
    let (year, month, day) = civil(days);
    let shown = if year <= 0 { 1 - year } else { year };
    if shown > 9999 {
        write_integer(out, shown);
    } else {
        write_two(out, shown / 100);
        write_two(out, shown % 100);
    }
    out.put_u8(b'-');
    write_two(out, month);
    out.put_u8(b'-');
    write_two(out, day);
    year <= 0
}

fn write_infinity(out: &mut BytesMut, is_negative: bool) {
    out.put_slice(if is_negative { b"-infinity" } else { b"infinity" });
}

pub(super) fn write_date(out: &mut BytesMut, days: i32) {
    if matches!(days, i32::MAX | i32::MIN) {
        return write_infinity(out, days < 0);
    }
    if write_civil(out, i64::from(days)) {
        out.put_slice(b" BC");
    }
}

/// `.123`, without zeros at the end; nothing for a whole second.
fn write_fraction(out: &mut BytesMut, mut micros: i64) {
    if micros == 0 {
        return;
    }
    let mut n_digits = 6;
    while micros % 10 == 0 {
        micros /= 10;
        n_digits -= 1;
    }
    out.put_u8(b'.');
    let mut unit = 10i64.pow(n_digits - 1);
    while unit > 0 {
        out.put_u8(b'0' + (micros / unit % 10) as u8);
        unit /= 10;
    }
}

pub(super) fn write_time(out: &mut BytesMut, micros: i64) {
    let seconds = micros / SECOND;
    write_two(out, seconds / 3600);
    out.put_u8(b':');
    write_two(out, seconds / 60 % 60);
    out.put_u8(b':');
    write_two(out, seconds % 60);
    write_fraction(out, micros % SECOND);
}

pub(super) fn write_timestamp(out: &mut BytesMut, micros: i64) {
    if matches!(micros, i64::MAX | i64::MIN) {
        return write_infinity(out, micros < 0);
    }
    if write_date_time(out, micros) {
        out.put_slice(b" BC");
    }
}

fn write_date_time(out: &mut BytesMut, micros: i64) -> bool {
    let is_bc = write_civil(out, micros.div_euclid(DAY));
    out.put_u8(b' ');
    write_time(out, micros.rem_euclid(DAY));
    is_bc
}

pub(super) fn write_timestamptz(out: &mut BytesMut, micros: i64, zone: Option<Tz>) {
    if matches!(micros, i64::MAX | i64::MIN) {
        return write_infinity(out, micros < 0);
    }
    // A moment outside of what the zone tables cover is shown in UTC.
    let offset = zone
        .zip(DateTime::from_timestamp_micros(micros))
        .map_or(0, |(zone, at)| i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()));
    let is_bc = write_date_time(out, micros.saturating_add(offset * SECOND));
    out.put_u8(if offset < 0 { b'-' } else { b'+' });
    let offset = offset.abs();
    write_two(out, offset / 3600);
    if offset % 3600 != 0 {
        out.put_u8(b':');
        write_two(out, offset / 60 % 60);
    }
    if offset % 60 != 0 {
        out.put_u8(b':');
        write_two(out, offset % 60);
    }
    if is_bc {
        out.put_slice(b" BC");
    }
}

/// `1 year 2 mons -3 days +04:05:06.7`: a part after a negative one carries its plus sign.
pub(super) fn write_interval(out: &mut BytesMut, value: IntervalMonthDayNano) {
    let mut is_first = true;
    let mut after_negative = false;
    for (n, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if n == 0 {
            continue;
        }
        if !is_first {
            out.put_u8(b' ');
        }
        if after_negative && n > 0 {
            out.put_u8(b'+');
        }
        write_integer(out, n);
        out.put_u8(b' ');
        out.put_slice(unit.as_bytes());
        if n != 1 {
            out.put_u8(b's');
        }
        is_first = false;
        after_negative = n < 0;
    }
    let micros = value.nanoseconds / 1000;
    if micros == 0 && !is_first {
        return;
    }
    if !is_first {
        out.put_u8(b' ');
    }
    if micros < 0 {
        out.put_u8(b'-');
    } else if after_negative {
        out.put_u8(b'+');
    }
    let micros = micros.saturating_abs();
    let hours = micros / (3600 * SECOND);
    if hours > 99 {
        write_integer(out, hours);
    } else {
        write_two(out, hours);
    }
    let rest = micros % (3600 * SECOND);
    out.put_u8(b':');
    write_two(out, rest / (60 * SECOND));
    out.put_u8(b':');
    write_two(out, rest / SECOND % 60);
    write_fraction(out, rest % SECOND);
}

pub(super) fn write_interval_binary(out: &mut BytesMut, value: IntervalMonthDayNano) {
    out.put_i64(value.nanoseconds / 1000);
    out.put_i32(value.days);
    out.put_i32(value.months);
}

/// The 16 bytes of a uuid in any form that PostgreSQL reads: hyphens after any group of four digits, braces.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut bytes = [0u8; 16];
    let mut n_digits = 0usize;
    let mut may_hyphen = false;
    for c in inner.chars() {
        if c == '-' && may_hyphen {
            may_hyphen = false;
            continue;
        }
        let digit = u8::try_from(c.to_digit(16)?).ok()?;
        let byte = bytes.get_mut(n_digits / 2)?;
        *byte = (*byte << 4) | digit;
        n_digits += 1;
        may_hyphen = n_digits.is_multiple_of(4) && n_digits < 32;
    }
    // A hyphen must stand between digits.
    (n_digits == 32).then_some(bytes)
}

/// The 36 lower-case characters of a uuid.
pub fn write_uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (idx, byte) in bytes.iter().enumerate() {
        if matches!(idx, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}
