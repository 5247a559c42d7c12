//! What a key accepts, and what follows where it is absent: the building blocks of the declarations in `keys`.

use std::ops::RangeInclusive;
use std::time::Duration;

use encoding_rs::Encoding;
use toml::de::DeValue;

use super::document::{Entry, Located, Table, found, found_kind, found_secret};
use super::error::ConfigError;
use crate::event::SourceName;

/// What values a key accepts.
pub(crate) trait Kind {
    /// What an accepted value becomes.
    type Value;

    /// The value, if it is accepted.
    fn read(&self, value: &DeValue<'_>) -> Option<Self::Value>;

    /// Completes "must be".
    fn accepts(&self) -> String;

    /// A value as it is written in a file.
    fn literal(&self, value: &Self::Value) -> String;

    /// Says of a value that is not accepted what it is, as in `is 0`; never repeats one that may be secret.
    fn found(&self, value: &DeValue<'_>) -> String {
        found(value)
    }
}

/// What follows from a key that is there or absent.
pub(crate) trait Rule {
    /// What the key becomes.
    type Value;

    /// Reads the key `name` of `table`.
    fn read(&self, table: &Table<'_>, name: &str) -> Result<Self::Value, ConfigError>;

    /// What the key accepts; completes "must be".
    fn accepts(&self) -> String;

    /// What applies where the key is absent.
    fn default(&self) -> Default;
}

/// What applies where a key is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// It must be there.
    Required,
    /// Nothing.
    Absent,
    /// This value, as it is written in a file.
    Literal(String),
}

/// A key that must be there.
pub(crate) struct Required<K>(pub(crate) K);

/// A key that may be absent, without a default.
pub(crate) struct Optional<K>(pub(crate) K);

/// A key with a default.
pub(crate) struct Or<K: Kind>(pub(crate) K, pub(crate) K::Value);

/// A key that has any number of values up to a limit, in an array; none where it is absent.
pub(crate) struct List<K> {
    /// What each of them is.
    pub(crate) each: K,
    /// How many there may be.
    pub(crate) count_max: usize,
}

/// A key that must be there, with one value or an array of them up to a limit.
pub(super) struct OneOrMore<K> {
    /// What each of them is.
    pub(super) each: K,
    /// How many there may be.
    pub(super) count_max: usize,
}

fn read_kind<K: Kind>(
    kind: &K,
    table: &Table<'_>,
    name: &str,
) -> Result<Option<Located<K::Value>>, ConfigError> {
    let Some(entry) = table.entry(name) else { return Ok(None) };
    match kind.read(entry.value) {
        Some(value) => Ok(Some(Located { value, line: entry.line })),
        None => Err(table.unacceptable(&entry, kind.accepts(), kind.found(entry.value))),
    }
}

impl<K: Kind> Rule for Required<K> {
    type Value = Located<K::Value>;

    fn read(&self, table: &Table<'_>, name: &str) -> Result<Self::Value, ConfigError> {
        read_kind(&self.0, table, name)?.ok_or_else(|| table.missing(name, self.0.accepts()))
    }

    fn accepts(&self) -> String {
        self.0.accepts()
    }

    fn default(&self) -> Default {
        Default::Required
    }
}

impl<K: Kind> Rule for Optional<K> {
    type Value = Option<Located<K::Value>>;

    fn read(&self, table: &Table<'_>, name: &str) -> Result<Self::Value, ConfigError> {
        read_kind(&self.0, table, name)
    }

    fn accepts(&self) -> String {
        self.0.accepts()
    }

    fn default(&self) -> Default {
        Default::Absent
    }
}

impl<K: Kind<Value: Clone>> Rule for Or<K> {
    type Value = Located<K::Value>;

    fn read(&self, table: &Table<'_>, name: &str) -> Result<Self::Value, ConfigError> {
        Ok(read_kind(&self.0, table, name)?
            .unwrap_or_else(|| Located { value: self.1.clone(), line: table.line() }))
    }

    fn accepts(&self) -> String {
        self.0.accepts()
    }

    fn default(&self) -> Default {
        Default::Literal(self.0.literal(&self.1))
    }
}

impl<K: Kind> List<K> {
    /// Reads one element, the first of which has number 1; an error names its line, and its number for those that
    /// share one.
    fn read_element(
        &self,
        table: &Table<'_>,
        number: usize,
        element: &Entry<'_>,
    ) -> Result<Located<K::Value>, ConfigError> {
        if number > self.count_max {
            let accepts = format!("an array of up to {}", self.count_max);
            return Err(table.unacceptable(element, accepts, "has more".to_owned()));
        }
        match self.each.read(element.value) {
            Some(value) => Ok(Located { value, line: element.line }),
            None => {
                let found = format!("element {number} {}", self.each.found(element.value));
                Err(table.unacceptable(element, self.accepts(), found))
            }
        }
    }
}

impl<K: Kind> Rule for List<K> {
    type Value = Vec<Located<K::Value>>;

    fn read(&self, table: &Table<'_>, name: &str) -> Result<Self::Value, ConfigError> {
        let Some(entry) = table.entry(name) else { return Ok(Vec::new()) };
        let Some(elements) = table.elements(&entry) else {
            return Err(table.unacceptable(&entry, self.accepts(), found_kind(entry.value)));
        };
        (1..).zip(&elements).map(|(number, element)| self.read_element(table, number, element)).collect()
    }

    fn accepts(&self) -> String {
        format!("an array of up to {}, each {}", self.count_max, self.each.accepts())
    }

    fn default(&self) -> Default {
        Default::Absent
    }
}

impl<K: Kind> Rule for OneOrMore<K> {
    type Value = Vec<Located<K::Value>>;

    fn read(&self, table: &Table<'_>, name: &str) -> Result<Self::Value, ConfigError> {
        let Some(entry) = table.entry(name) else { return Err(table.missing(name, self.accepts())) };
        let elements = table.elements(&entry).unwrap_or_else(|| vec![entry]);
        if elements.is_empty() || elements.len() > self.count_max {
            let found = format!("is an array of {}", elements.len());
            return Err(table.unacceptable(&entry, self.accepts(), found));
        }
        let read = |element: &Entry<'_>| match self.each.read(element.value) {
            Some(value) => Ok(Located { value, line: element.line }),
            None => Err(table.unacceptable(element, self.accepts(), self.each.found(element.value))),
        };
        elements.iter().map(read).collect()
    }

    fn accepts(&self) -> String {
        format!("{}, or an array of 1 to {} such", self.each.accepts(), self.count_max)
    }

    fn default(&self) -> Default {
        Default::Required
    }
}

/// Text on one line, without control characters.
pub(crate) struct Line {
    bytes: RangeInclusive<usize>,
    secret: bool,
}

impl Line {
    /// A name.
    pub(crate) const NAME: Self = Self { bytes: 1..=SourceName::MAX_BYTES, secret: false };
    /// A path or a URL; 4096 bytes are the longest path of Linux.
    pub(crate) const PATH: Self = Self { bytes: 1..=4096, secret: false };
    /// Where something goes that may also go nowhere in particular.
    pub(crate) const ADDRESS: Self = Self { bytes: 0..=255, secret: false };
    /// A secret, or where one is to be had.
    pub(crate) const SECRET: Self = Self { bytes: 1..=4096, secret: true };
    /// A text, if only an empty one.
    pub(crate) const MAYBE_EMPTY: Self = Self { bytes: 0..=4096, secret: false };
    /// What stands in place of something else, if only nothing.
    pub(super) const REPLACEMENT: Self = Self { bytes: 0..=4096, secret: false };
}

impl Kind for Line {
    type Value = String;

    fn read(&self, value: &DeValue<'_>) -> Option<String> {
        let text = value.as_str()?;
        let accepted = self.bytes.contains(&text.len()) && !text.contains(char::is_control);
        accepted.then(|| text.to_owned())
    }

    fn accepts(&self) -> String {
        let (min, max) = (self.bytes.start(), self.bytes.end());
        format!("a string of {min} to {max} bytes without control characters")
    }

    fn literal(&self, value: &String) -> String {
        format!("{value:?}")
    }

    fn found(&self, value: &DeValue<'_>) -> String {
        if self.secret { found_secret(value) } else { found(value) }
    }
}

/// A whole number within bounds.
pub(crate) struct Whole<T>(pub(crate) RangeInclusive<T>);

impl<T> Kind for Whole<T>
where
    T: Copy + PartialOrd + std::fmt::Display + TryFrom<u64>,
{
    type Value = T;

    fn read(&self, value: &DeValue<'_>) -> Option<T> {
        T::try_from(whole(value)?).ok().filter(|number| self.0.contains(number))
    }

    fn accepts(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn literal(&self, value: &T) -> String {
        value.to_string()
    }
}

/// A duration in whole milliseconds, at least one.
pub(crate) struct Millis;

/// The longest duration in milliseconds: 49 days, and far from what an `Instant` cannot be moved by.
const MILLIS_MAX: u64 = u32::MAX as u64;

impl Kind for Millis {
    type Value = Duration;

    fn read(&self, value: &DeValue<'_>) -> Option<Duration> {
        whole(value).filter(|millis| (1..=MILLIS_MAX).contains(millis)).map(Duration::from_millis)
    }

    fn accepts(&self) -> String {
        format!("a whole number of milliseconds from 1 to {MILLIS_MAX}")
    }

    fn literal(&self, value: &Duration) -> String {
        value.as_millis().to_string()
    }
}

/// A duration in seconds, fractions allowed.
pub(super) struct Seconds {
    /// The shortest: zero, or [`Seconds::TICK`].
    pub(super) min: Duration,
}

impl Seconds {
    /// The shortest duration above zero that makes a difference.
    pub(super) const TICK: Duration = Duration::from_millis(1);
    /// The longest duration: 136 years, and far from what an `Instant` cannot be moved by.
    const MAX: Duration = Duration::from_secs(u32::MAX as u64);
}

impl Kind for Seconds {
    type Value = Duration;

    fn read(&self, value: &DeValue<'_>) -> Option<Duration> {
        let duration = match value {
            DeValue::Float(number) => {
                Duration::try_from_secs_f64(number.as_str().parse::<f64>().ok()?).ok()?
            }
            value => Duration::from_secs(whole(value)?),
        };
        (self.min..=Self::MAX).contains(&duration).then_some(duration)
    }

    fn accepts(&self) -> String {
        format!(
            "a number of seconds from {} to {}, fractions allowed",
            self.min.as_secs_f64(),
            Self::MAX.as_secs()
        )
    }

    fn literal(&self, value: &Duration) -> String {
        value.as_secs_f64().to_string()
    }
}

/// A number of bytes: a whole number, or a string of one with a unit.
pub(crate) struct Bytes(pub(crate) RangeInclusive<u64>);

/// The units of [`Bytes`], largest first, so that a value is shown in the largest that divides it.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// The largest number of bytes that a file system or TOML can speak of.
pub(super) const BYTES_MAX: u64 = i64::MAX as u64;

impl Kind for Bytes {
    type Value = u64;

    fn read(&self, value: &DeValue<'_>) -> Option<u64> {
        let bytes = match value {
            DeValue::String(text) => {
                let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
                let unit = text.get(digits.len()..)?.trim();
                let (_, factor) = UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
                digits.parse::<u64>().ok()?.checked_mul(factor)?
            }
            value => whole(value)?,
        };
        self.0.contains(&bytes).then_some(bytes)
    }

    fn accepts(&self) -> String {
        let bounds = match (*self.0.start(), *self.0.end()) {
            (0, BYTES_MAX) => String::new(),
            (min, BYTES_MAX) => format!("{} or more, ", show_bytes(min)),
            (min, max) => format!("{} to {}, ", show_bytes(min), show_bytes(max)),
        };
        format!("a size, {bounds}as a whole number of bytes or a string such as \"64 MiB\" or \"10 GB\"")
    }

    fn literal(&self, value: &u64) -> String {
        format!("{:?}", show_bytes(*value))
    }
}

/// A number of bytes in the largest unit that divides it, as in `64 MiB`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let unit = UNITS.into_iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(("B", 1));
    format!("{} {name}", bytes / factor)
}

/// One of a few words, whatever their case.
pub(crate) struct OneOf<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for OneOf<T> {
    type Value = T;

    fn read(&self, value: &DeValue<'_>) -> Option<T> {
        let text = value.as_str()?;
        self.0.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, choice)| *choice)
    }

    fn accepts(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        words.join(" or ")
    }

    fn literal(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, choice)| choice == value).map_or("", |(word, _)| word);
        format!("\"{word}\"")
    }
}

/// The label of an encoding, as browsers know them.
pub(super) struct Label;

impl Kind for Label {
    type Value = &'static Encoding;

    fn read(&self, value: &DeValue<'_>) -> Option<&'static Encoding> {
        // Some labels stand for no encoding but for refusing a text, and one for bytes that have none.
        Encoding::for_label_no_replacement(value.as_str()?.as_bytes())
            .filter(|encoding| *encoding != encoding_rs::X_USER_DEFINED)
    }

    fn accepts(&self) -> String {
        "the label of an encoding, such as \"utf-8\", \"utf-16le\", \"utf-16be\", \"latin1\" (as browsers do, it is \
         read as windows-1252), \"windows-1251\", \"koi8-r\", \"shift_jis\", \"euc-jp\", \"gbk\", \"gb18030\", \"big5\" or \
         \"euc-kr\""
            .to_owned()
    }

    fn literal(&self, value: &&'static Encoding) -> String {
        format!("{:?}", value.name().to_lowercase())
    }
}

/// A whole number that is not negative.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: Kind>(kind: &K, literal: &str) -> Option<K::Value> {
        kind.read(DeValue::parse(literal).unwrap().get_ref())
    }

    #[test]
    fn whole_numbers_stop_at_their_bounds() {
        let kind = Whole(1_u32..=10);
        assert_eq!(read(&kind, "1"), Some(1));
        assert_eq!(read(&kind, "0xA"), Some(10));
        for refused in ["0", "11", "-1", "1.0", "\"1\"", "true", "99999999999999999999999999"] {
            assert_eq!(read(&kind, refused), None, "{refused}");
        }
    }

    #[test]
    fn sizes_take_bytes_and_units() {
        let kind = Bytes(0..=BYTES_MAX);
        assert_eq!(read(&kind, "1_048_576"), Some(1 << 20));
        assert_eq!(read(&kind, "\"64 MiB\""), Some(64 << 20));
        assert_eq!(read(&kind, "\"64mib\""), Some(64 << 20));
        assert_eq!(read(&kind, "\"10 GB\""), Some(10_000_000_000));
        assert_eq!(read(&kind, "\"9223372036854775807 B\""), Some(BYTES_MAX));
        let refused =
            ["\"\"", "\"MiB\"", "\"5\"", "\"1.5 MiB\"", "\"-1 MiB\"", "\"16777216 TiB\"", "\"1 M\"", "-1"];
        for refused in refused {
            assert_eq!(read(&kind, refused), None, "{refused}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_divides_them() {
        for (bytes, shown) in [(0, "0 B"), (1023, "1023 B"), (10 << 30, "10 GiB"), (10_000_000_000, "10 GB")]
        {
            assert_eq!(show_bytes(bytes), shown);
        }
    }

    #[test]
    fn every_encoding_is_known_by_its_name_and_its_usual_labels() {
        for (label, name) in [
            ("utf-8", "UTF-8"),
            (" UTF8 ", "UTF-8"),
            ("utf-16", "UTF-16LE"),
            ("utf-16be", "UTF-16BE"),
            ("latin1", "windows-1252"),
            ("ISO-8859-1", "windows-1252"),
            ("iso-8859-15", "ISO-8859-15"),
            ("windows-1251", "windows-1251"),
            ("cp1250", "windows-1250"),
            ("koi8-r", "KOI8-R"),
            ("sjis", "Shift_JIS"),
            ("euc-jp", "EUC-JP"),
            ("iso-2022-jp", "ISO-2022-JP"),
            ("gb2312", "GBK"),
            ("gb18030", "gb18030"),
            ("big5", "Big5"),
            ("euc-kr", "EUC-KR"),
        ] {
            let encoding = read(&Label, &format!("{label:?}")).unwrap();
            assert_eq!(encoding.name(), name, "{label}");
            assert_eq!(read(&Label, &Label.literal(&encoding)), Some(encoding), "{label}");
        }
        for refused in ["", "utf-7", "utf-32", "ebcdic", "replacement", "iso-2022-kr", "x-user-defined"] {
            assert_eq!(read(&Label, &format!("{refused:?}")), None, "{refused}");
        }
        assert_eq!(read(&Label, "8"), None);
    }

    #[test]
    fn every_label_that_is_an_example_is_accepted() {
        for example in Label.accepts().split('"').skip(1).step_by(2) {
            assert!(read(&Label, &format!("{example:?}")).is_some(), "{example}");
        }
    }

    #[test]
    fn seconds_take_fractions_and_no_nonsense() {
        let kind = Seconds { min: Seconds::TICK };
        assert_eq!(read(&kind, "0.25"), Some(Duration::from_millis(250)));
        assert_eq!(read(&kind, "5"), Some(Duration::from_secs(5)));
        for refused in ["0", "0.0", "-1", "-0.5", "inf", "nan", "1e300", "4294967296", "\"5\""] {
            assert_eq!(read(&kind, refused), None, "{refused}");
        }
    }

    proptest::proptest! {
        #[test]
        fn sizes_round_trip_through_their_text(bytes in 0..=BYTES_MAX) {
            let kind = Bytes(0..=BYTES_MAX);
            proptest::prop_assert_eq!(read(&kind, &kind.literal(&bytes)), Some(bytes));
            proptest::prop_assert_eq!(read(&kind, &bytes.to_string()), Some(bytes));
        }

        #[test]
        fn whole_numbers_round_trip_through_their_text(number in 1..=u32::MAX) {
            let kind = Whole(1..=u32::MAX);
            proptest::prop_assert_eq!(read(&kind, &kind.literal(&number)), Some(number));
        }

        #[test]
        fn durations_round_trip_through_their_text(millis in 1..=MILLIS_MAX) {
            let duration = Duration::from_millis(millis);
            proptest::prop_assert_eq!(read(&Millis, &Millis.literal(&duration)), Some(duration));
            let kind = Seconds { min: Seconds::TICK };
            proptest::prop_assert_eq!(read(&kind, &kind.literal(&duration)), Some(duration));
        }
    }
}
