//! What a batch is encoded under, beside its content. The spool keeps it with every batch, so that a change of the
//! configuration changes nothing about what may have been sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Format, Labels};
use crate::event::SourceName;

/// Everything but the content that the bytes of a body depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// `agent_name`.
    pub agent_name: String,
    /// `format`.
    pub format: Format,
    /// `[global.labels]`.
    pub labels: Labels,
    /// `[sources.labels]`, of those sources that have any.
    pub source_labels: BTreeMap<SourceName, Labels>,
    /// `elasticsearch_index`, where the format has a use for it; empty otherwise.
    pub index: String,
    /// For batches that were cut under another format: their keys name this profile, as the keys that they had may have
    /// been sent with other bytes.
    pub rekeyed: bool,
}

/// What stands behind the agent's name in an entry, where it is not all default.
#[derive(Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Rest {
    format: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
    #[serde(skip_serializing_if = "String::is_empty")]
    index: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rekeyed: bool,
}

impl From<&Config> for Profile {
    fn from(config: &Config) -> Self {
        let global = &config.global;
        let labelled = config.sources.iter().filter(|source| !source.labels.is_empty());
        let index =
            if global.format == Format::Elasticsearch { global.elasticsearch_index.as_str() } else { "" };
        Self {
            agent_name: global.agent_name.clone(),
            format: global.format,
            labels: global.labels.clone(),
            source_labels: labelled.map(|source| (source.name.clone(), source.labels.clone())).collect(),
            index: index.to_owned(),
            rekeyed: false,
        }
    }
}

impl Profile {
    /// A profile of plain JSON, without labels.
    #[must_use]
    pub fn json(agent_name: &str) -> Self {
        Self { agent_name: agent_name.to_owned(), ..Self::default() }
    }

    /// The labels of the events of `source`: its own win.
    #[must_use]
    pub fn labels_of(&self, source: &SourceName) -> Labels {
        let mut labels = self.labels.clone();
        if let Some(own) = self.source_labels.get(source) {
            labels.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        labels
    }

    /// What the keys of its batches end with: nothing, but for batches that had other keys before.
    #[must_use]
    pub fn key_suffix(&self) -> String {
        if !self.rekeyed {
            return String::new();
        }
        let mut all = self.entry();
        for (source, labels) in self.source_entries() {
            all.push(0);
            all.extend_from_slice(source.as_str().as_bytes());
            all.push(0);
            all.extend_from_slice(&labels);
        }
        format!("-{:016x}", xxhash_rust::xxh3::xxh3_64(&all))
    }

    /// The profile as an entry of the ledger, without what sources have of their own: the agent's name, and where
    /// anything is not default a NUL, which no name has, and the rest as a JSON object.
    #[must_use]
    pub fn entry(&self) -> Vec<u8> {
        let rest = Rest {
            format: self.format.name().to_owned(),
            labels: self.labels.clone(),
            index: self.index.clone(),
            rekeyed: self.rekeyed,
        };
        let mut entry = self.agent_name.clone().into_bytes();
        if rest != (Rest { format: Format::default().name().to_owned(), ..Rest::default() }) {
            entry.push(0);
            entry.extend_from_slice(&to_json(&rest));
        }
        entry
    }

    /// What sources have of their own, an entry each: their labels as a JSON object.
    pub fn source_entries(&self) -> impl Iterator<Item = (&SourceName, Vec<u8>)> {
        self.source_labels.iter().map(|(source, labels)| (source, to_json(labels)))
    }

    /// Reads what [`Profile::entry`] wrote; `None` where it is something else.
    #[must_use]
    pub fn from_entry(entry: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(entry).ok()?;
        let Some((agent_name, rest)) = text.split_once('\0') else { return Some(Self::json(text)) };
        let rest: Rest = serde_json::from_str(rest).ok()?;
        Some(Self {
            agent_name: agent_name.to_owned(),
            format: Format::from_name(&rest.format)?,
            labels: rest.labels,
            source_labels: BTreeMap::new(),
            index: rest.index,
            rekeyed: rest.rekeyed,
        })
    }

    /// Adds what [`Profile::source_entries`] wrote of a source; `None` where it is something else.
    pub fn add_source_entry(&mut self, source: SourceName, entry: &[u8]) -> Option<()> {
        self.source_labels.insert(source, serde_json::from_slice(entry).ok()?);
        Some(())
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Strings and truth values always have a JSON.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[a-z_]{1,8}", "\\PC{1,20}", 0..4)
    }

    pub(crate) fn profile() -> impl Strategy<Value = Profile> {
        let sources = proptest::collection::btree_map("\\PC{1,12}", labels(), 0..3);
        let format = proptest::sample::select(&Format::ALL[..]);
        ("\\PC{0,20}", format, labels(), sources, "[a-z{}-]{0,20}", any::<bool>()).prop_map(
            |(agent_name, format, labels, sources, index, rekeyed)| Profile {
                agent_name,
                format,
                labels,
                source_labels: sources
                    .into_iter()
                    .map(|(name, labels)| (SourceName::from(name.as_str()), labels))
                    .collect(),
                index,
                rekeyed,
            },
        )
    }

    proptest! {
        #[test]
        fn a_profile_is_read_as_it_was_written(profile in profile()) {
            let mut read = Profile::from_entry(&profile.entry()).unwrap();
            for (source, entry) in profile.source_entries() {
                read.add_source_entry(source.clone(), &entry).unwrap();
            }
            prop_assert_eq!(read, profile);
        }

        #[test]
        fn keys_that_name_a_profile_name_one_alone(one in profile(), other in profile()) {
            let (one, other) = (Profile { rekeyed: true, ..one }, Profile { rekeyed: true, ..other });
            prop_assert_eq!(one == other, one.key_suffix() == other.key_suffix());
        }
    }

    #[test]
    fn a_profile_of_plain_json_is_the_name_of_the_agent() {
        assert_eq!(Profile::json("agent1").entry(), b"agent1");
        assert_eq!(Profile::json("agent1").key_suffix(), "");
    }

    #[test]
    fn the_largest_labels_stay_below_the_values_that_the_ledger_makes_durable() {
        let labels = Labels::from([("x".repeat(64), "\"".repeat(3000))]);
        let index = "x".repeat(128);
        let format = Format::Elasticsearch;
        let profile = Profile { agent_name: "a".repeat(255), format, labels, index, ..Profile::default() };
        assert!(profile.entry().len() < 8 << 10, "{}", profile.entry().len());
    }
}
