//! What the names of files say about rotations. A name is a hint where to look; it never decides alone which file is which.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// What compressed generations have behind their names.
const ARCHIVE_SUFFIX: &[u8] = b".gz";

/// Whether `candidate` looks like an older generation of `name` that a rotation left beside it: the name, or its
/// stem, with a number or a date (`app.log.1`, `app.log-20240115`, `app-2024-01-15.log`, `app.log.old`).
/// Compressed generations do not count; they cannot be read as lines.
pub(super) fn is_rotated_name(name: &OsStr, candidate: &OsStr) -> bool {
    let (name, candidate) = (name.as_bytes(), candidate.as_bytes());
    if candidate.strip_prefix(name).is_some_and(is_mark) {
        return true;
    }
    let Some(dot) = memchr::memrchr(b'.', name).filter(|dot| *dot > 0) else { return false };
    let (stem, extension) = name.split_at(dot);
    candidate.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension)).is_some_and(is_mark)
}

/// The names of which `name` may be an older generation, longest first: for `app.log.2024-01-15` it is `app.log.2024-01`,
/// `app.log.2024` and `app.log`.
pub(super) fn bases(name: &OsStr) -> Vec<OsString> {
    fn without_mark(stem: &[u8]) -> impl Iterator<Item = &[u8]> {
        let cut =
            |at: usize| stem.split_at_checked(at).filter(|(base, mark)| !base.is_empty() && is_mark(mark));
        (1..stem.len()).rev().filter_map(move |at| Some(cut(at)?.0))
    }
    let name = name.as_bytes();
    let mut bases: Vec<OsString> = without_mark(name).map(|base| OsString::from_vec(base.to_vec())).collect();
    if let Some(dot) = memchr::memrchr(b'.', name).filter(|dot| *dot > 0) {
        let (stem, extension) = name.split_at(dot);
        bases.extend(without_mark(stem).map(|base| OsString::from_vec([base, extension].concat())));
    }
    bases
}

/// Whether files of both names may be generations of one: one is a rotated form of the other, or both of a third.
pub(super) fn are_related(one: &OsStr, other: &OsStr) -> bool {
    let roots = |name: &OsStr| [vec![name.to_owned()], bases(name)].concat();
    let others = roots(other);
    roots(one).iter().any(|root| others.contains(root))
}

/// The name of what a compressed generation was made of, if `name` is that of one.
pub(super) fn unpacked(name: &OsStr) -> Option<&OsStr> {
    name.as_bytes().strip_suffix(ARCHIVE_SUFFIX).filter(|rest| !rest.is_empty()).map(OsStr::from_bytes)
}

/// Whether this is what a rotation puts behind a name.
fn is_mark(mark: &[u8]) -> bool {
    match mark.split_first() {
        Some((b'.' | b'-' | b'_', rest)) => {
            matches!(rest, b"old" | b"bak" | b"prev")
                || (rest.iter().any(u8::is_ascii_digit)
                    && rest.iter().all(|byte| byte.is_ascii_digit() || b".-_:TZ".contains(byte)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_are_recognised_and_neighbours_are_not() {
        let rotated = |name: &str, candidate: &str| is_rotated_name(OsStr::new(name), OsStr::new(candidate));
        for candidate in [
            "app.log.1",
            "app.log.12",
            "app.log-20240115",
            "app.log.2024-01-15T10:30:00Z",
            "app-2024-01-15.log",
            "app.3.log",
            "app.log.old",
        ] {
            assert!(rotated("app.log", candidate), "{candidate}");
        }
        for candidate in
            ["app.log", "app.log.1.gz", "app-error.log", "app.log.swp", "app2.log", "other.log.1", "app.log."]
        {
            assert!(!rotated("app.log", candidate), "{candidate}");
        }
        assert!(rotated("app", "app.1"));
    }

    #[test]
    fn a_rotated_name_leads_back_to_the_name_before() {
        let found = |name: &str| -> Vec<String> {
            bases(OsStr::new(name)).into_iter().map(|base| base.into_string().unwrap()).collect()
        };
        assert_eq!(found("app.log.1"), ["app.log"]);
        assert_eq!(found("app.log.2024-01-15"), ["app.log.2024-01", "app.log.2024", "app.log"]);
        assert_eq!(found("app-20240115.log"), ["app.log"]);
        assert_eq!(found("app.log"), Vec::<String>::new());
        assert_eq!(found(".1"), Vec::<String>::new());
    }

    #[test]
    fn generations_of_one_name_are_related_and_neighbours_are_not() {
        let related = |one: &str, other: &str| are_related(OsStr::new(one), OsStr::new(other));
        assert!(related("app.log", "app.log.1") && related("app.log.2", "app.log.1"));
        assert!(related("app.log-20240115", "app.log") && related("app.log", "app.log"));
        assert!(!related("a.log", "b.log") && !related("app.log.1", "other.log.1"));
        assert_eq!(unpacked(OsStr::new("app.log.1.gz")), Some(OsStr::new("app.log.1")));
        assert_eq!(unpacked(OsStr::new("app.log")), None);
        assert_eq!(unpacked(OsStr::new(".gz")), None);
    }
}
