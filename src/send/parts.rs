//! A batch's payload taken apart, for transports whose messages may have less than a batch.

#[cfg(feature = "kafka")]
pub(super) use self::apart::Part;
#[cfg(any(feature = "kafka", feature = "queue"))]
pub(super) use self::apart::{KEY_HEADER, NotOurs, SEQ_HEADER, SOURCE_HEADER, spool_of, take_apart};

/// How many events travel in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    /// The whole batch.
    Batch,
    /// What it has of a source.
    Source,
    /// One.
    Event,
}

#[cfg(any(feature = "kafka", feature = "queue"))]
mod apart {
    use std::fmt;

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use crate::batch::{Payload, SourceRange};
    use crate::event::Seq;

    /// Carries the key of the batch that a message was sent with.
    pub(in crate::send) const KEY_HEADER: &str = "Log-Agent-Key";
    /// Carries the sequence number; a range where a message has several events, and ranges where it has several sources.
    pub(in crate::send) const SEQ_HEADER: &str = "Log-Agent-Seq";
    /// Carries the source, where a message has the events of one.
    pub(in crate::send) const SOURCE_HEADER: &str = "Log-Agent-Source";

    /// The payload cannot be taken apart, which only a payload of another form than this program's can cause.
    #[derive(Debug)]
    pub(in crate::send) struct NotOurs;

    impl fmt::Display for NotOurs {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the batch's payload cannot be taken apart into messages: set messages to \"batch\"")
        }
    }

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
        #[serde(borrow)]
        logs: &'a RawValue,
    }

    /// What a payload has of one source.
    pub(in crate::send) struct Part<'a> {
        agent: &'a RawValue,
        source: Source<'a>,
        pub(in crate::send) range: &'a SourceRange,
    }

    /// What `payload` has of each source, in payload order.
    pub(in crate::send) fn take_apart(payload: &Payload) -> Result<Vec<Part<'_>>, NotOurs> {
        let Body { agent_name: agent, sources } =
            serde_json::from_slice(&payload.body).map_err(|_| NotOurs)?;
        if sources.len() != payload.sources.len() {
            return Err(NotOurs);
        }
        let part = |(source, range)| Part { agent, source, range };
        Ok(sources.into_iter().zip(&payload.sources).map(part).collect())
    }

    impl<'a> Part<'a> {
        /// The agent's name of when the batch was cut, which the configuration may have changed.
        #[cfg(feature = "kafka")]
        pub(in crate::send) fn agent_name(&self) -> Option<String> {
            serde_json::from_str(self.agent.get()).ok()
        }

        /// The range of its sequence numbers.
        pub(in crate::send) fn seq(&self) -> String {
            format!("{}-{}", self.range.first, self.range.last)
        }

        /// A payload that has this source alone.
        pub(in crate::send) fn body(&self) -> String {
            let Self { agent, source: Source { source_name, logs }, .. } = self;
            format!(
                "{{\"agentName\":{agent},\"sources\":[{{\"sourceName\":{source_name},\"logs\":{logs}}}]}}"
            )
        }

        /// Its events: objects with members, as many as its range has numbers.
        pub(in crate::send) fn events(&self) -> Result<Vec<&'a RawValue>, NotOurs> {
            let events: Vec<&RawValue> = serde_json::from_str(self.source.logs.get()).map_err(|_| NotOurs)?;
            let announced = self.range.last.since(self.range.first).saturating_add(1);
            let are_objects = events.iter().all(|event| event.get().starts_with("{\""));
            if events.len() as u64 == announced && are_objects { Ok(events) } else { Err(NotOurs) }
        }

        /// A body that has one of its events alone.
        pub(in crate::send) fn event_body(&self, seq: Seq, event: &RawValue) -> String {
            let members = event.get().strip_prefix('{').unwrap_or_default();
            let Self { agent, source: Source { source_name, .. }, .. } = self;
            format!("{{\"agentName\":{agent},\"sourceName\":{source_name},\"seq\":{seq},{members}")
        }
    }

    /// The id of the spool that a payload comes from: what its key begins with.
    pub(in crate::send) fn spool_of(payload: &Payload) -> Result<&str, NotOurs> {
        payload.key.split_once('-').map(|(spool, _)| spool).ok_or(NotOurs)
    }
}
