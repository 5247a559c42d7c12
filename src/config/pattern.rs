//! Regular expressions: compiled within bounds, and told in one line where they are wrong.
//!
//! Invariants:
//! - No message repeats a pattern: one that redacts may name what is secret.
//! - What is wrong with a pattern, and which groups a replacement refers to, is decided by the code that compiles and
//!   replaces.

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::util::interpolate;
use toml::de::DeValue;

use super::document::{found_kind, quoted};
use super::rules::{Kind, show_bytes};

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;
/// The most memory that a pattern is compiled to, in bytes. `\w{32}`, over all letters of Unicode, takes 1.5 MiB;
/// `[a-z]{1000}` takes 70 KiB.
const COMPILED_BYTES_MAX: u64 = 2 << 20;

/// A regular expression over the bytes of an event.
pub(super) struct Pattern;

impl Kind for Pattern {
    type Value = Regex;

    fn read(&self, value: &DeValue<'_>) -> Option<Regex> {
        compile(value.as_str()?).ok()
    }

    fn accepts(&self) -> String {
        format!("a regular expression of 1 to {PATTERN_BYTES_MAX} bytes")
    }

    fn literal(&self, value: &Regex) -> String {
        format!("{:?}", value.as_str())
    }

    fn found(&self, value: &DeValue<'_>) -> String {
        match value.as_str().map(compile) {
            Some(Err(reason)) => format!("is not one: {reason}"),
            _ => found_kind(value),
        }
    }
}

/// Compiles `text`, or says in one line what is wrong with it.
fn compile(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > PATTERN_BYTES_MAX {
        return Err(format!("it has {} bytes", text.len()));
    }
    let limit = usize::try_from(COMPILED_BYTES_MAX).unwrap_or(usize::MAX);
    RegexBuilder::new(text).size_limit(limit).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            let most = show_bytes(COMPILED_BYTES_MAX);
            format!("it takes more than {most} when compiled; what is inside (?-u:…) is ASCII alone and takes less")
        }
        // Its text draws the pattern over several lines.
        _ => mistake(text).unwrap_or_else(|| "it cannot be compiled".to_owned()),
    })
}

/// What is wrong in the syntax of `text`, and where.
fn mistake(text: &str) -> Option<String> {
    // As `regex::bytes` parses: matches need not be UTF-8.
    let error = regex_syntax::ParserBuilder::new().utf8(false).build().parse(text).err()?;
    let (what, span) = match &error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span()),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span()),
        _ => return None,
    };
    let before = text.get(..span.start.offset)?.chars().count();
    Some(format!("{what}, at character {}", before.saturating_add(1)))
}

/// The first group that `replacement` refers to and `pattern` does not have, in quotes.
pub(super) fn missing_group(pattern: &Regex, replacement: &str) -> Option<String> {
    let (mut number, mut name) = (None, None);
    interpolate::string(
        replacement,
        |index, _| {
            if index >= pattern.captures_len() {
                number.get_or_insert(index);
            }
        },
        |group| {
            if !pattern.capture_names().flatten().any(|known| known == group) {
                name.get_or_insert_with(|| group.to_owned());
            }
            None
        },
        &mut String::new(),
    );
    number.map(|index| index.to_string()).or(name).map(|group| quoted(&group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(pattern: &str) -> String {
        compile(pattern).unwrap_err()
    }

    #[test]
    fn what_is_wrong_with_a_pattern_is_told_with_its_place() {
        for (pattern, expected) in [
            ("", "it is empty"),
            ("a(b", "unclosed group, at character 2"),
            ("é[a", "unclosed character class, at character 2"),
            ("a**)", "unopened group, at character 4"),
            (r"(a)\1", "backreferences are not supported, at character 4"),
            (
                "a\n*\n(?=b)",
                "look-around, including look-ahead and look-behind, is not supported, at character 5",
            ),
            (r"\p{Klingon}", "Unicode property not found, at character 1"),
        ] {
            assert_eq!(reason(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_are_bounded_in_length_and_in_memory() {
        assert!(compile(&"x".repeat(PATTERN_BYTES_MAX)).is_ok());
        assert_eq!(reason(&"x".repeat(PATTERN_BYTES_MAX + 1)), "it has 4097 bytes");
        assert!(compile(r"\w{32}").is_ok() && compile(r"(?-u:\w){1000}").is_ok());
        for large in [r"\w{64}", "(((a{1000}){1000}){1000})"] {
            assert!(reason(large).starts_with("it takes more than 2 MiB when compiled; "), "{large}");
        }
    }

    #[test]
    fn patterns_match_bytes_that_are_not_utf8() {
        assert!(compile(r"^(?-u:\xff)+.$").unwrap().is_match(b"\xff\xffx"));
    }

    #[test]
    fn a_reference_to_a_group_is_found_where_replacing_would_find_it() {
        let pattern = compile("(?<user>[a-z]+)=([0-9]+)").unwrap();
        for present in
            ["", "none", "$0 $1 ${2}", "$user:${user}", "$$3", "$", "a$ b", "${", "${user", "${1}a"]
        {
            assert_eq!(missing_group(&pattern, present), None, "{present}");
        }
        for (absent, group) in [
            ("$3", "\"3\""),
            ("$1a", "\"1a\""),
            ("$user_", "\"user_\""),
            ("${}", "\"\""),
            ("$$$name", "\"name\""),
        ] {
            assert_eq!(missing_group(&pattern, absent).as_deref(), Some(group), "{absent}");
        }
    }

    proptest! {
        #[test]
        fn every_text_compiles_or_is_told_in_one_line(text in any::<String>()) {
            if let Err(reason) = compile(&text) {
                prop_assert!(!reason.contains(char::is_control), "{reason:?}");
            }
        }

        #[test]
        fn a_mistake_is_found_in_whatever_does_not_compile(text in r"[a-c0-9(){}\[\]*+?|\\^$.<>:!=P-]{1,12}") {
            if let Err(reason) = compile(&text) {
                prop_assert!(reason.contains(", at character ") || reason.contains("compiled"), "{reason}");
            }
        }

        #[test]
        fn no_group_is_missing_where_replacing_leaves_nothing_out(replacement in "[$a{}1 ]{0,8}") {
            // Both groups take part in the match with text that no replacement has, so what is replaced by nothing is
            // a reference to a group that is not there.
            let pattern = compile("(?<a>X)(Y)").unwrap();
            let replaced = pattern.replace(b"XY", replacement.as_bytes());
            let mut all_known = String::new();
            interpolate::string(
                &replacement,
                |index, text| text.push_str(["XY", "X", "Y"].get(index).unwrap_or(&"?")),
                |name| Some(if name == "a" { 1 } else { 3 }),
                &mut all_known,
            );
            prop_assert_eq!(missing_group(&pattern, &replacement).is_none(), *replaced == *all_known.as_bytes());
        }
    }
}
