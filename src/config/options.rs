//! What a strategy needs to declare a table of its own below `[global]`, as the configuration declares its own: one line a
//! key, from which reading, the check for unknown keys and the documentation follow.

pub(crate) use super::auth::secret_file;
pub(crate) use super::document::{Located, Table};
pub(crate) use super::error::{ConfigError, Problem};
pub(crate) use super::keys::{Row, name_of, refuse_unknown, table};
pub(crate) use super::rules::{Line, List, OneOf, Optional, Or, Required, Rule};
pub(crate) use super::transport::Beside;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::document::Text;
    use super::super::rules::Whole;
    use super::*;
    use crate::config::{
        Config, Feature, Format, OptionTable, Options, Schemes, SendType, Takes, Transport, reference,
        resolve,
    };

    table! {
        /// `[global.pigeon]`.
        PigeonKeys, "[global.pigeon]", also &[], {
            loft: Located<String> = Or(Line::NAME, "roof".to_owned()),
                "Where they live.";
            rings: Option<Located<u32>> = Optional(Whole(1..=2)),
                "How many each has.";
            kept: Located<bool> = Or(OneOf(&[("yes", true), ("no", false)]), true),
                "Whether they come back.";
        }
    }

    #[derive(Debug, PartialEq)]
    struct Pigeon {
        loft: String,
        rings: Option<u32>,
    }

    fn read(table: &Table<'_>, _: Beside<'_>) -> Result<Options, ConfigError> {
        let keys = PigeonKeys::read(table)?;
        if let (Some(rings), "roof") = (&keys.rings, keys.loft.value.as_str()) {
            let problem = Problem::Conflict("has no meaning on a roof".to_owned());
            return Err(table.error("rings", rings.line, problem));
        }
        let rings = keys.rings.filter(|_| keys.kept.value).map(|rings| rings.value);
        Ok(Options::new(Pigeon { loft: keys.loft.value, rings }))
    }

    const OPTIONS: OptionTable = OptionTable {
        name: "pigeon",
        about: "How the birds are kept.",
        keys: PigeonKeys::KEYS,
        rows: PigeonKeys::rows,
        read,
    };
    const PIGEON: Transport = Transport {
        name: "PIGEON",
        about: "a slip of paper",
        schemes: Schemes { plain: "coo", secure: "coos" },
        takes: Takes {
            end_points: false,
            formats: &[Format::Json],
            compression: false,
            headers: false,
            bearer: false,
        },
        feature: Some(Feature { name: "pigeon", built: true }),
        options: Some(&OPTIONS),
        sends: |_| String::new(),
    };
    const EXTINCT: Transport = Transport {
        name: "DODO",
        feature: Some(Feature { name: "dodo", built: false }),
        options: None,
        ..PIGEON
    };
    const KNOWN: &[&Transport] = &[&PIGEON, &EXTINCT];

    fn load(send_type: &str, rest: &str) -> Result<Config, String> {
        let text = format!(
            "[global]\nagent_name = \"a\"\nend_point = \"coo://host\"\nsend_type = \"{send_type}\"\n{rest}\n\
             [[sources]]\nname = \"s\"\nlog_path = \"/s.log\"\n"
        );
        let text = Text::from_bytes(Path::new("c"), text.into_bytes(), KNOWN).unwrap();
        resolve(&text, None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_strategy_reads_its_own_table_and_one_that_is_not_there_is_its_defaults() {
        let options = |rest: &str| load("Pigeon", rest).unwrap().global.options;
        let absent = options("");
        assert_eq!(absent.of::<Pigeon>(), Some(&Pigeon { loft: "roof".into(), rings: None }));
        assert_eq!(absent.of::<String>(), None);
        let given = options("[global.pigeon]\nloft = \"tower\"\nrings = 2");
        assert_eq!(given.of::<Pigeon>(), Some(&Pigeon { loft: "tower".into(), rings: Some(2) }));
    }

    #[test]
    fn what_is_wrong_in_a_strategys_table_is_told_with_its_line_and_key() {
        let says = |rest: &str| load("PIGEON", rest).unwrap_err();
        for (rest, message) in [
            (
                "[global.pigeon]\nrings = 3",
                "c:6: global.pigeon.rings: must be a whole number from 1 to 2, is 3",
            ),
            ("[global.pigeon]\nrings = 1", "c:6: global.pigeon.rings: has no meaning on a roof"),
            (
                "[global.pigeon]\nlofts = 1",
                "c:6: global.pigeon.lofts: is not a known key; did you mean loft?",
            ),
            ("pigeon = 1", "c:5: global.pigeon: must be a table, [global.pigeon], is 1"),
            ("pigeons = 1", "c:5: global.pigeons: is not a known key; did you mean pigeon?"),
            ("loft = \"x\"", "c:5: global.loft: is not a known key; it belongs under [global.pigeon]"),
        ] {
            assert_eq!(says(rest), message);
        }
    }

    #[test]
    fn what_has_no_meaning_with_a_strategy_is_refused_with_it() {
        let meaningless = "has no meaning with send_type = \"PIGEON\"";
        let says = |rest: &str| load("PIGEON", rest).unwrap_err();
        assert_eq!(says("[global.headers]\nX-A = \"x\""), format!("c:5: global.headers: {meaningless}"));
        let compressed = says("compression = \"gzip\"");
        assert!(
            compressed.starts_with("c:5: global.compression: must be \"none\", as send_type is \"PIGEON\"")
        );
        let bearer = says("[global.auth]\ntype = \"bearer\"\ntoken = \"hunter2\"");
        assert_eq!(bearer, "c:6: global.auth.type: must be \"basic\", as send_type is \"PIGEON\"");
    }

    #[test]
    fn a_strategy_that_was_not_built_in_is_refused_with_how_to_build_it() {
        let message = load("dodo", "").unwrap_err();
        assert!(
            message.starts_with("c:4: global.send_type: \"DODO\" is not part of this log-agent"),
            "{message}"
        );
        assert!(message.ends_with("cargo build --release --features dodo"), "{message}");
        let unknown = load("TCP", "").unwrap_err();
        assert_eq!(unknown, "c:4: global.send_type: must be \"PIGEON\" or \"DODO\", is the string \"TCP\"");
    }

    #[test]
    fn the_reference_has_what_a_strategy_declares() {
        let reference = reference(KNOWN);
        for part in [
            "| `\"PIGEON\"` | `coo://`, `coos://` | a slip of paper | json | no | no | basic | `pigeon`, on by default |",
            "### `[global.pigeon]`\n\nHow the birds are kept.\n",
            "| `loft` | `\"roof\"` | ",
        ] {
            assert!(reference.contains(part), "{reference}");
        }
        assert_eq!(format!("{:?}", SendType(&PIGEON)), "PIGEON");
    }
}
