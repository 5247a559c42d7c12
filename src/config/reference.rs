//! The documentation of every key, made from the declarations.

use std::fmt::Write as _;

use super::keys::{AuthKeys, GlobalKeys, MultilineKeys, ProxyKeys, RedactKeys, Row, SourceKeys, TlsKeys};
use super::rules::Default;

/// Every key with what it accepts, its default and what it is for, as Markdown tables. The README has this text.
#[must_use]
pub fn reference() -> String {
    let tables = [
        (GlobalKeys::HEADER, "Required, once.", GlobalKeys::rows()),
        (
            "[global.headers]",
            "Headers sent with every request, each as `Name = \"value\"`; not those that the agent sets itself. \
             Values are never printed.",
            Vec::new(),
        ),
        (
            "[global.labels]",
            "What is sent with every event, each as `name = \"value\"`; which names a format takes is in \
             [docs/formats.md](docs/formats.md).",
            Vec::new(),
        ),
        (
            AuthKeys::HEADER,
            "The secret is given by exactly one of three keys, and never printed.",
            AuthKeys::rows(),
        ),
        (TlsKeys::HEADER, "The server's certificate is always verified.", TlsKeys::rows()),
        (
            ProxyKeys::HEADER,
            "Without it the environment says: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case. The \
             password is given by exactly one of three keys, and never printed.",
            ProxyKeys::rows(),
        ),
        (SourceKeys::HEADER, "At least one.", SourceKeys::rows()),
        (
            "[sources.labels]",
            "Below the source that it belongs to: labels of its events alone, which win over those of `[global.labels]`.",
            Vec::new(),
        ),
        (
            MultilineKeys::HEADER,
            "Below the source that it belongs to, with exactly one of `start_pattern`, `continue_pattern` and `preset`.",
            MultilineKeys::rows(),
        ),
        (
            RedactKeys::HEADER,
            "Below the source that it belongs to, up to 64 times; applied in the order of the file, before a line reaches \
             the disk.",
            RedactKeys::rows(),
        ),
    ];
    let mut text = String::new();
    for (header, about, rows) in tables {
        if !text.is_empty() {
            text.push('\n');
        }
        write_table(&mut text, header, about, &rows);
    }
    text
}

fn write_table(text: &mut String, header: &str, about: &str, rows: &[Row]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "### `{header}`\n\n{about}");
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n| Key | Default | Accepts | What for |\n| --- | --- | --- | --- |");
    for Row { name, accepts, default, about } in rows {
        let default = match default {
            Default::Required => "required".to_owned(),
            Default::Absent => "none".to_owned(),
            Default::Literal(literal) => format!("`{literal}`"),
        };
        let _ = writeln!(text, "| `{name}` | {default} | {accepts} | {about} |");
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::Text;
    use super::*;
    use crate::config::{Config, Problem};
    use std::path::Path;

    const SAMPLE: &str = include_str!("../../log-agent.config");
    const README: &str = include_str!("../../README.md");

    /// Every table with its keys.
    fn tables() -> [(&'static str, Vec<Row>); 7] {
        [
            (GlobalKeys::HEADER, GlobalKeys::rows()),
            (AuthKeys::HEADER, AuthKeys::rows()),
            (TlsKeys::HEADER, TlsKeys::rows()),
            (ProxyKeys::HEADER, ProxyKeys::rows()),
            (SourceKeys::HEADER, SourceKeys::rows()),
            (MultilineKeys::HEADER, MultilineKeys::rows()),
            (RedactKeys::HEADER, RedactKeys::rows()),
        ]
    }

    fn load(text: &str) -> Result<Config, crate::config::ConfigError> {
        super::super::resolve(&Text::from_bytes(Path::new("sample"), text.into())?, None)
    }

    #[test]
    fn the_readme_has_the_reference() {
        let reference = reference();
        assert!(
            README.contains(&reference),
            "put this into README.md, as `check --keys` prints it:\n{reference}"
        );
    }

    #[test]
    fn the_example_of_the_readme_is_accepted() {
        let example = README.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let required: String = SAMPLE
            .lines()
            .take_while(|line| *line != "[[sources]]")
            .map(|line| format!("{line}\n"))
            .collect();
        let config = load(&format!("{required}{example}")).unwrap();
        assert_eq!(config.sources.len(), 2);
        let redacted = config.sources[0]
            .lines
            .redact
            .iter()
            .fold(b"password=hunter2 1234 5678 9012 3456".to_vec(), |line, redact| {
                redact.pattern.replace_all(&line, redact.replacement.as_bytes()).into_owned()
            });
        assert_eq!(redacted, b"password=[redacted] ****3456");
    }

    /// The sample's lines under `header`, those that are commented out (`#key = …`, without a space) included.
    fn sample_lines(header: &str) -> impl Iterator<Item = &'static str> {
        SAMPLE
            .lines()
            .skip_while(move |line| line.trim_start_matches('#') != header)
            .skip(1)
            .take_while(|line| !line.trim_start_matches('#').starts_with('['))
    }

    #[test]
    fn the_sample_has_every_key_and_its_default() {
        for (header, rows) in tables() {
            for row in rows {
                let name = row.name;
                let is_it = |line: &&str| line.starts_with(&format!("{name} = "));
                let set = sample_lines(header).find(is_it);
                let commented = sample_lines(header).filter_map(|line| line.strip_prefix('#')).find(is_it);
                // In a table that is commented out as a whole, so are its defaults.
                let is_set = SAMPLE.lines().any(|line| line == header);
                match row.default {
                    Default::Literal(literal) => {
                        let stated = if is_set { set } else { commented };
                        assert_eq!(stated, Some(format!("{name} = {literal}").as_str()), "{header} {name}");
                    }
                    Default::Required => assert!(set.or(commented).is_some(), "{header} {name}"),
                    Default::Absent => assert!(commented.is_some(), "{header} {name}"),
                }
            }
        }
    }

    #[test]
    fn the_sample_says_what_a_file_with_the_required_keys_alone_says() {
        let sample = load(SAMPLE).unwrap();
        let required: String = SAMPLE
            .lines()
            .filter(|line| {
                let key = line.split(" = ").next().unwrap_or_default();
                line.starts_with('[')
                    || ["agent_name", "end_point", "send_type", "name", "log_path"].contains(&key)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(format!("{sample:#?}"), format!("{:#?}", load(&required).unwrap()));
    }

    #[test]
    fn what_the_sample_has_commented_out_is_accepted_too() {
        for header in tables().map(|(header, _)| header).into_iter().chain([
            "[global.headers]",
            "[global.labels]",
            "[sources.labels]",
        ]) {
            let keys: Vec<&str> = sample_lines(header)
                .filter_map(|line| line.strip_prefix('#'))
                .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
                .collect();
            assert!(!keys.is_empty(), "{header}");
            let together = keys.join("\n");
            for key in keys.into_iter().chain([together.as_str()]) {
                let text = if SAMPLE.lines().any(|line| line == header) {
                    SAMPLE.replace(&format!("\n{header}\n"), &format!("\n{header}\n{key}\n"))
                } else {
                    format!("{SAMPLE}\n{header}\n{key}\n")
                };
                // Alone, a key may lack others or a file; together, they may conflict. What matters is that each is
                // known, and of the right type.
                let Err(error) = load(&text) else { continue };
                assert!(
                    matches!(
                        error.problem(),
                        Problem::Missing { .. } | Problem::Conflict(_) | Problem::PemUnreadable { .. }
                    ),
                    "{header} {key}: {error}"
                );
            }
        }
    }
}
