//! The `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date in one of three forms.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};

use crate::event::Timestamp;

/// The longest wait that a server can ask for: a wrong clock there must not silence the agent here.
pub(in crate::send) const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long to wait from `now`, at most an hour; `None` where the value is not one that the standard knows.
pub(super) fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long wait, too.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let millis = date_millis(value)?.saturating_sub(now.millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    };
    Some(wait.min(WAIT_MAX))
}

/// An HTTP-date (RFC 9110, section 5.6.7), in milliseconds since the Unix epoch.
fn date_millis(value: &str) -> Option<i64> {
    if let Ok(date) = DateTime::parse_from_rfc2822(value) {
        return Some(date.timestamp_millis());
    }
    // The two obsolete forms, which a recipient must accept: RFC 850 and asctime.
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(value, form).ok())
        .map(|date| date.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const EXAMPLE: i64 = 784_111_777_000;

    fn seconds(value: &str) -> Option<u64> {
        parse(value, Timestamp::from_millis(EXAMPLE - 90_000)).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_all_three_forms_of_a_date_are_understood() {
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(90));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:49:37 GMT"), Some(90));
        assert_eq!(seconds("Sun Nov  6 08:49:37 1994"), Some(90));
    }

    #[test]
    fn a_date_in_the_past_is_no_wait() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:40:00 GMT"), Some(0));
    }

    #[test]
    fn no_server_can_ask_for_more_than_an_hour() {
        for value in ["3601", "99999999999999999999999999", "Fri, 31 Dec 2399 23:59:59 GMT"] {
            assert_eq!(seconds(value), Some(3600), "{value}");
        }
    }

    #[test]
    fn anything_else_is_no_wish_at_all() {
        for value in ["", "-1", "1.5", "soon", "1994-11-06T08:49:37Z", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(seconds(value), None, "{value}");
        }
    }
}
