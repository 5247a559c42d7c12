//! The documentation of every key, made from the declarations.

use std::fmt::Write as _;

use super::format::Format;
use super::keys::{AuthKeys, GlobalKeys, MultilineKeys, ProxyKeys, RedactKeys, Row, SourceKeys, TlsKeys};
use super::rules::Default;
use super::transport::Transport;

/// Every key with what it accepts, its default and what it is for, as Markdown tables, the strategies and their own
/// tables among them. The README has this text.
#[must_use]
pub fn reference(transports: &[&Transport]) -> String {
    let mut text = String::new();
    write_table(&mut text, GlobalKeys::HEADER, "Required, once.", &GlobalKeys::rows());
    write_strategies(&mut text, transports);
    let own = transports.iter().filter_map(|transport| transport.options);
    let own = own.map(|options| (options.header(), options.about, (options.rows)()));
    for (header, about, rows) in of_global().into_iter().chain(own).chain(of_sources()) {
        text.push('\n');
        write_table(&mut text, &header, about, &rows);
    }
    text
}

/// A table: its header, what is said before its keys, a row a key.
type Described = (String, &'static str, Vec<Row>);

fn of_global() -> Vec<Described> {
    vec![
        (
            "[global.headers]".to_owned(),
            "Headers sent with every request, each as `Name = \"value\"`; not those that the agent sets itself. \
             Values are never printed.",
            Vec::new(),
        ),
        (
            "[global.labels]".to_owned(),
            "What is sent with every event, each as `name = \"value\"`; which names a format takes is in \
             [docs/formats.md](docs/formats.md).",
            Vec::new(),
        ),
        (
            AuthKeys::HEADER.to_owned(),
            "The secret is given by exactly one of three keys, and never printed.",
            AuthKeys::rows(),
        ),
        (TlsKeys::HEADER.to_owned(), "The server's certificate is always verified.", TlsKeys::rows()),
        (
            ProxyKeys::HEADER.to_owned(),
            "Without it the environment says: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case. The \
             password is given by exactly one of three keys, and never printed.",
            ProxyKeys::rows(),
        ),
    ]
}

fn of_sources() -> Vec<Described> {
    vec![
        (SourceKeys::HEADER.to_owned(), "At least one.", SourceKeys::rows()),
        (
            "[sources.labels]".to_owned(),
            "Below the source that it belongs to: labels of its events alone, which win over those of `[global.labels]`.",
            Vec::new(),
        ),
        (
            MultilineKeys::HEADER.to_owned(),
            "Below the source that it belongs to, with exactly one of `start_pattern`, `continue_pattern` and `preset`.",
            MultilineKeys::rows(),
        ),
        (
            RedactKeys::HEADER.to_owned(),
            "Below the source that it belongs to, up to 64 times; applied in the order of the file, before a line reaches \
             the disk.",
            RedactKeys::rows(),
        ),
    ]
}

fn write_strategies(text: &mut String, transports: &[&Transport]) {
    let yes = |takes| if takes { "yes" } else { "no" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\nThe strategies; docs/strategies.md says what each promises. What a strategy does not take is refused with it.\n\n\
         | `send_type` | `end_point` | Batches travel as | `format` | `compression` | `[global.headers]` | `type` of `[global.auth]` | \
         Cargo feature |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for transport in transports {
        let (schemes, takes) = (transport.schemes, transport.takes);
        let auth = if takes.bearer { "bearer, basic" } else { "basic" };
        let formats = if takes.formats.len() == Format::ALL.len() {
            "any".to_owned()
        } else {
            takes.formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
        };
        let feature = match transport.feature {
            Some(feature) => format!("`{}`, on by default", feature.name),
            None => "always there".to_owned(),
        };
        let _ = writeln!(
            text,
            "| `\"{}\"` | `{}://`, `{}://` | {} | {formats} | {} | {} | {auth} | {feature} |",
            transport.name,
            schemes.plain,
            schemes.secure,
            transport.about,
            yes(takes.compression),
            yes(takes.headers),
        );
    }
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
    use crate::send::transports;
    use std::path::Path;

    const SAMPLE: &str = include_str!("../../log-agent.config");
    const README: &str = include_str!("../../README.md");

    /// Every table with its keys.
    fn tables() -> Vec<(String, Vec<Row>)> {
        let global = (GlobalKeys::HEADER.to_owned(), GlobalKeys::rows());
        let own = transports().into_iter().filter_map(|transport| transport.options);
        let own = own.map(|options| (options.header(), (options.rows)()));
        let others = of_global().into_iter().chain(of_sources()).map(|(header, _, rows)| (header, rows));
        [global].into_iter().chain(own).chain(others).collect()
    }

    fn load(text: &str) -> Result<Config, crate::config::ConfigError> {
        super::super::resolve(&Text::from_bytes(Path::new("sample"), text.into(), &transports())?, None)
    }

    /// The sample, made to send by the strategy whose table `header` is, if it is one's.
    fn sample_for(header: &str) -> String {
        let of =
            |transport: &&&Transport| transport.options.is_some_and(|options| options.header() == header);
        let transports = transports();
        let Some(transport) = transports.iter().find(of) else { return SAMPLE.to_owned() };
        SAMPLE
            .replace("http://127.0.0.1:8080/", &format!("{}://127.0.0.1/", transport.schemes.plain))
            .replace("\"HTTP\"\n", &format!("\"{}\"\n", transport.name))
    }

    #[test]
    fn the_readme_has_the_reference() {
        let reference = reference(&transports());
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
    fn sample_lines(header: &str) -> impl Iterator<Item = &'static str> + use<'_> {
        SAMPLE
            .lines()
            .skip_while(move |line| line.trim_start_matches('#') != header)
            .skip(1)
            .take_while(|line| !line.trim_start_matches('#').starts_with('['))
    }

    #[test]
    fn the_sample_has_every_key_and_its_default() {
        for (header, rows) in tables() {
            let header = header.as_str();
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
        for (header, _) in tables() {
            let header = header.as_str();
            let sample = sample_for(header);
            let keys: Vec<&str> = sample_lines(header)
                .filter_map(|line| line.strip_prefix('#'))
                .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
                .collect();
            assert!(!keys.is_empty(), "{header}");
            let together = keys.join("\n");
            for key in keys.into_iter().chain([together.as_str()]) {
                let text = if SAMPLE.lines().any(|line| line == header) {
                    sample.replace(&format!("\n{header}\n"), &format!("\n{header}\n{key}\n"))
                } else {
                    format!("{sample}\n{header}\n{key}\n")
                };
                // Alone, a key may lack others or a file; together, they may conflict. What matters is that each is
                // known, and of the right type.
                let Err(error) = load(&text) else { continue };
                assert!(
                    matches!(
                        error.problem(),
                        Problem::Missing { .. }
                            | Problem::Conflict(_)
                            | Problem::PemUnreadable { .. }
                            | Problem::SecretFile(_)
                    ),
                    "{header} {key}: {error}"
                );
            }
        }
    }
}
