//! Words in dates and times.

use super::super::to_char::{DAYS, MONTHS};

/// A day that is no date.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Day {
    Now,
    FromToday(i64),
    Infinity,
    MinusInfinity,
    Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Word {
    Month(i64),
    /// The day of a week, or a word that says nothing.
    Ignored,
    Afternoon(bool),
    BeforeChrist(bool),
    /// A zone's seconds east of Greenwich.
    Zone(i64),
    Day(Day),
    /// Midnight in Greenwich.
    Midnight,
    /// A number follows: a Julian day.
    Julian,
    /// A time follows.
    Time,
    /// A unit, which only says that a word is no zone or date.
    Unit,
}

/// Zones by their abbreviations, in minutes east of Greenwich.
const ZONES: &[(&str, i64)] = &[
    ("acdt", 630),
    ("acst", 570),
    ("adt", -180),
    ("aedt", 660),
    ("aest", 600),
    ("akdt", -480),
    ("akst", -540),
    ("art", -180),
    ("ast", -240),
    ("awst", 480),
    ("brt", -180),
    ("bst", 60),
    ("cdt", -300),
    ("cest", 120),
    ("cet", 60),
    ("cst", -360),
    ("edt", -240),
    ("eest", 180),
    ("eet", 120),
    ("est", -300),
    ("gmt", 0),
    ("hkt", 480),
    ("hst", -600),
    ("ict", 420),
    ("ist", 120),
    ("jst", 540),
    ("kst", 540),
    ("mdt", -360),
    ("msd", 240),
    ("msk", 180),
    ("mst", -420),
    ("ndt", -150),
    ("nst", -210),
    ("nzdt", 780),
    ("nzst", 720),
    ("pdt", -420),
    ("pht", 480),
    ("pkt", 300),
    ("pst", -480),
    ("sast", 120),
    ("sgt", 480),
    ("uct", 0),
    ("ut", 0),
    ("utc", 0),
    ("wet", 0),
    ("z", 0),
    ("zulu", 0),
];

/// What a word in lower case means.
pub(super) fn meaning(word: &str) -> Option<Word> {
    Some(match word {
        "am" | "pm" => Word::Afternoon(word == "pm"),
        "ad" | "bc" => Word::BeforeChrist(word == "bc"),
        "at" | "on" => Word::Ignored,
        "now" => Word::Day(Day::Now),
        "yesterday" => Word::Day(Day::FromToday(-1)),
        "today" => Word::Day(Day::FromToday(0)),
        "tomorrow" => Word::Day(Day::FromToday(1)),
        "infinity" | "+infinity" => Word::Day(Day::Infinity),
        "-infinity" => Word::Day(Day::MinusInfinity),
        "epoch" => Word::Day(Day::Epoch),
        "allballs" => Word::Midnight,
        "j" | "jd" | "julian" => Word::Julian,
        "t" => Word::Time,
        "d" | "h" | "m" | "mm" | "s" | "y" => Word::Unit,
        "sept" => Word::Month(9),
        "tues" | "wed" | "weds" | "thur" | "thurs" => Word::Ignored,
        word => {
            if let Some(month) = month_named(word) {
                Word::Month(month)
            } else if DAYS.iter().any(|day| is_name(word, day)) {
                Word::Ignored
            } else {
                let idx = ZONES.binary_search_by_key(&word, |(name, _)| name).ok()?;
                Word::Zone(ZONES.get(idx)?.1 * 60)
            }
        }
    })
}

/// The number of a month, by its name or the first three letters of it.
pub(in super::super) fn month_named(word: &str) -> Option<i64> {
    MONTHS.iter().position(|month| is_name(word, month)).map(|idx| idx as i64 + 1)
}

fn is_name(word: &str, name: &str) -> bool {
    let is_word = |name: &str| name.eq_ignore_ascii_case(word);
    is_word(name) || name.get(..3).is_some_and(is_word)
}

/// Whether a word means something by itself, besides zones.
pub(super) fn is_known(word: &str) -> bool {
    !matches!(meaning(&word.to_ascii_lowercase()), None | Some(Word::Zone(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_in_order() {
        assert!(ZONES.is_sorted());
        assert_eq!(meaning("z"), Some(Word::Zone(0)));
        assert_eq!(meaning("sep"), Some(Word::Month(9)));
        assert_eq!(meaning("smarch"), None);
    }
}
