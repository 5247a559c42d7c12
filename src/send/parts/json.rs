//! A payload in JSON, read just far enough to be put together again: what stands in it is copied as it is written.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::apart::NotOurs;
use crate::event::Seq;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    agent_name: &'a RawValue,
    #[serde(borrow)]
    sources: Vec<Source<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source<'a> {
    #[serde(borrow)]
    source_name: &'a RawValue,
    #[serde(borrow, default)]
    labels: Option<&'a RawValue>,
    #[serde(borrow)]
    logs: &'a RawValue,
}

/// What a payload has of one source.
pub(super) struct Part<'a> {
    agent: &'a RawValue,
    source: Source<'a>,
}

/// What `body` has of each source.
pub(super) fn parts(body: &[u8]) -> Result<Vec<Part<'_>>, NotOurs> {
    let Body { agent_name: agent, sources } = serde_json::from_slice(body).map_err(|_| NotOurs)?;
    Ok(sources.into_iter().map(|source| Part { agent, source }).collect())
}

impl<'a> Part<'a> {
    /// A payload that has this source alone.
    pub(super) fn body(&self) -> String {
        let Self { agent, source: Source { source_name, logs, .. } } = self;
        let labels = self.labels();
        format!(
            "{{\"agentName\":{agent},\"sources\":[{{\"sourceName\":{source_name}{labels},\"logs\":{logs}}}]}}"
        )
    }

    /// Its events: objects with members.
    pub(super) fn events(&self) -> Result<Vec<&'a RawValue>, NotOurs> {
        let events: Vec<&RawValue> = serde_json::from_str(self.source.logs.get()).map_err(|_| NotOurs)?;
        let are_objects = events.iter().all(|event| event.get().starts_with("{\""));
        if are_objects { Ok(events) } else { Err(NotOurs) }
    }

    /// A body that has one of its events alone.
    pub(super) fn event_body(&self, seq: Seq, event: &RawValue) -> String {
        let members = event.get().strip_prefix('{').unwrap_or_default();
        let Self { agent, source: Source { source_name, .. } } = self;
        let labels = self.labels();
        format!("{{\"agentName\":{agent},\"sourceName\":{source_name}{labels},\"seq\":{seq},{members}")
    }

    /// `,"labels":{…}`, or nothing.
    fn labels(&self) -> String {
        self.source.labels.map(|labels| format!(",\"labels\":{labels}")).unwrap_or_default()
    }
}
