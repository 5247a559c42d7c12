//! The times of container records: RFC 3339, at fixed places, with up to nine digits of a second's fraction.

use chrono::NaiveDate;

use crate::event::Timestamp;

/// Reads `2024-01-15T10:30:00.123456789Z`, or with an offset such as `+01:00` in place of the `Z`. The fraction is cut to
/// milliseconds.
pub(super) fn parse(text: &[u8]) -> Option<Timestamp> {
    let (fixed, rest) = text.split_first_chunk::<19>()?;
    let [y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T', h1, h2, b':', mi1, mi2, b':', s1, s2] = *fixed
    else {
        return None;
    };
    let year = i32::try_from(number(&[y1, y2, y3, y4])?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(&[mo1, mo2])?, number(&[d1, d2])?)?;
    let (millis, zone) = fraction(rest)?;
    // A leap second is the beginning of the next one.
    let (second, leap) = match number(&[s1, s2])? {
        60 => (59, 1_000),
        second => (second, 0),
    };
    let time = date.and_hms_opt(number(&[h1, h2])?, number(&[mi1, mi2])?, second)?;
    let local = time.and_utc().timestamp_millis() + i64::from(millis + leap);
    Some(Timestamp::from_millis(local - offset_millis(zone)?))
}

/// The fraction of a second in milliseconds, and what comes after it.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&len) {
        return None;
    }
    let (digits, zone) = digits.split_at_checked(len)?;
    let mut padded = [b'0'; 3];
    for (to, from) in padded.iter_mut().zip(digits) {
        *to = *from;
    }
    Some((number(&padded)?, zone))
}

fn offset_millis(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let offset = i64::from(hours * 60 + minutes) * 60_000;
            (hours < 24 && minutes < 60).then_some(if sign == b'+' { offset } else { -offset })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<i64> {
        parse(text.as_bytes()).map(Timestamp::millis)
    }

    #[test]
    fn nanoseconds_are_cut_to_milliseconds() {
        assert_eq!(millis("2024-01-15T10:30:00.123999999Z"), Some(1_705_314_600_123));
        assert_eq!(millis("2024-01-15T10:30:00.5Z"), Some(1_705_314_600_500));
        assert_eq!(millis("2024-01-15T10:30:00Z"), Some(1_705_314_600_000));
        assert_eq!(millis("1969-12-31T23:59:59.999Z"), Some(-1));
    }

    #[test]
    fn an_offset_is_taken_off() {
        assert_eq!(millis("2024-01-15T11:30:00.123456789+01:00"), Some(1_705_314_600_123));
        assert_eq!(millis("2024-01-15T05:00:00.123456789-05:30"), Some(1_705_314_600_123));
    }

    #[test]
    fn a_leap_second_is_the_beginning_of_the_next() {
        assert_eq!(millis("2016-12-31T23:59:60.250Z"), millis("2017-01-01T00:00:00.250Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2024-01-15",
            "2024-01-15T10:30:00",
            "2024-01-15 10:30:00Z",
            "2024-13-15T10:30:00Z",
            "2024-02-30T10:30:00Z",
            "2024-01-15T24:30:00Z",
            "2024-01-15T10:60:00Z",
            "2024-01-15T10:30:61Z",
            "2024-01-15T10:30:00.Z",
            "2024-01-15T10:30:00.1234567890Z",
            "2024-01-15T10:30:00+1:00",
            "2024-01-15T10:30:00+24:00",
            "2024-01-15T10:30:00Zx",
            "2o24-01-15T10:30:00Z",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn it_agrees_with_the_library_on_every_kind_of_day() {
        for days in (-40_000..80_000).step_by(97) {
            let at = i64::from(days) * 86_400_000 + 45_296_789;
            let text = Timestamp::from_millis(at).to_string();
            assert_eq!(millis(&text), Some(at), "{text}");
        }
    }
}
