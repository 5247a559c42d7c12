//! The spool's outstanding batches as delivery asks for them: read back, encoded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::aggregate;
use crate::batch::{BatchId, Payload};
use crate::payload::Encoder;
use crate::retry::{Outbox, OutboxError};
use crate::spool::{BatchError, Batches};

/// [`Outbox`] over a spool.
pub(crate) struct SpoolOutbox {
    batches: Batches,
    /// One encoder for each profile that outstanding batches are filed under, by its number: mostly one.
    encoders: Mutex<BTreeMap<u32, Arc<Encoder>>>,
    /// Whether payloads are to say where each of their events ends.
    ends_wanted: bool,
}

impl SpoolOutbox {
    pub(crate) fn new(batches: Batches) -> Self {
        Self { batches, encoders: Mutex::default(), ends_wanted: false }
    }

    /// Whether payloads are to say where each of their events ends.
    pub(crate) fn marking_ends(self, wanted: bool) -> Self {
        Self { ends_wanted: wanted, ..self }
    }
}

impl From<BatchError> for OutboxError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Replaced(by) => Self::Replaced(by),
            BatchError::Closed(_) => Self::Closed,
        }
    }
}

impl Outbox for SpoolOutbox {
    fn load(&self, batch: BatchId) -> Result<Payload, OutboxError> {
        let read = self.batches.read(batch)?;
        let encoder = {
            let mut encoders = self.encoders.lock().unwrap_or_else(PoisonError::into_inner);
            let (number, profile) = &read.profile;
            let encoder = || Arc::new(Encoder::new(profile).marking_ends(self.ends_wanted));
            encoders.entry(*number).or_insert_with(encoder).clone()
        };
        Ok(aggregate::encode(&encoder, batch, read.spool_id, &read.content))
    }

    fn acknowledge(&self, payload: &Payload) {
        self.batches.acknowledge(payload.batch, payload.sources.clone());
    }

    fn bisect(&self, batch: BatchId) -> Result<[BatchId; 2], OutboxError> {
        self.batches.bisect(batch).map_err(|_| OutboxError::Closed)
    }

    fn bury(&self, payload: &Payload, status: u16, response: &str) -> Result<(), OutboxError> {
        self.batches.bury(payload.batch, status, response).map_err(|_| OutboxError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::config::{Format, Labels};
    use crate::payload::Profile;
    use crate::spool::tests::{append, committed, cut, options};
    use crate::spool::{Spool, SpoolOptions};

    fn profile(format: Format, team: &str) -> Profile {
        let labels = Labels::from([("team".to_owned(), team.to_owned())]);
        let source_labels = [(crate::event::SourceName::from("app"), labels)].into();
        Profile { format, source_labels, index: "i".to_owned(), ..Profile::json("agent") }
    }

    /// Opens the spool under `profile`, and loads every batch that is outstanding.
    fn open(dir: &Path, profile: Profile) -> (Spool, Vec<Payload>) {
        let spool = Spool::open(&SpoolOptions { profile: Some(profile), ..options(dir) }).unwrap();
        let outbox = SpoolOutbox::new(spool.batches());
        let payloads = spool.batches().outstanding().into_iter().map(|batch| outbox.load(batch).unwrap());
        let payloads = payloads.collect();
        (spool, payloads)
    }

    /// The same, and closes it.
    fn loaded(dir: &Path, profile: Profile) -> Vec<(String, Bytes)> {
        let (spool, payloads) = open(dir, profile);
        spool.close();
        payloads.into_iter().map(|payload| (payload.key.to_string(), payload.body)).collect()
    }

    #[test]
    fn what_is_cut_keeps_its_key_and_its_bytes_when_labels_change_and_takes_another_key_with_another_format()
    {
        let root = tempfile::tempdir().unwrap();
        let (spool, _) = open(root.path(), profile(Format::Ndjson, "one"));
        append(&spool, "app", 0, 6);
        committed(&spool, 7);
        let ids = cut(&spool, &[(1, 2), (3, 6)]);
        spool.close();
        let first = loaded(root.path(), profile(Format::Ndjson, "one"));
        assert_eq!(first.len(), 2);
        assert!(first[0].0.ends_with("-1-2"), "{}", first[0].0);
        assert_eq!(loaded(root.path(), profile(Format::Ndjson, "two")), first, "labels are those of the cut");

        // Every change of the format, and back, with other labels each time: no key ever names two contents.
        let mut known: BTreeMap<String, Bytes> = first.into_iter().collect();
        let changes =
            [Format::Loki, Format::Elasticsearch, Format::Json, Format::Ndjson, Format::Loki, Format::Raw];
        for (format, team) in changes.into_iter().zip(["a", "b", "c", "d", "e", "f"]) {
            let now = loaded(root.path(), profile(format, team));
            assert_eq!(now, loaded(root.path(), profile(format, "another team")), "it stays so: {format:?}");
            for (key, body) in now {
                assert!(format != Format::Loki || body.starts_with(b"{\"streams\""));
                assert!(format != Format::Elasticsearch || body.starts_with(b"{\"create\""));
                let before = known.insert(key.clone(), body.clone());
                assert!(before.is_none_or(|before| before == body), "{key} names two contents");
            }
        }

        // Only what is in use is kept.
        let kept = crate::spool::tests::profiles(root.path());
        assert_eq!(kept.len(), 2, "{kept:?}");

        // A part of such a batch goes on with its key, and one that is cut now has none of it.
        let (spool, _) = open(root.path(), profile(Format::Raw, "f"));
        let halves = spool.batches().bisect(ids[1]).unwrap();
        append(&spool, "app", 6, 1);
        committed(&spool, 8);
        let new = cut(&spool, &[(7, 7)])[0];
        let outbox = SpoolOutbox::new(spool.batches());
        let half = outbox.load(halves[0]).unwrap();
        assert!(
            known.keys().any(|key| key.rsplit('-').next() == half.key.rsplit('-').next()),
            "{}",
            half.key
        );
        assert_eq!(&half.body[..], b"line 000002\nline 000003\n");
        assert!(outbox.load(new).unwrap().key.ends_with("-7-7"));
    }

    #[test]
    fn a_payload_has_the_name_of_its_cut_and_says_where_its_events_end_if_that_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let (spool, _) = open(root.path(), profile(Format::Raw, "x"));
        append(&spool, "app", 0, 3);
        committed(&spool, 4);
        let batch = cut(&spool, &[(1, 3)])[0];
        spool.close();
        let renamed = Profile { agent_name: "renamed".to_owned(), ..profile(Format::Raw, "x") };
        let (spool, unmarked) = open(root.path(), renamed);
        let marked = SpoolOutbox::new(spool.batches()).marking_ends(true).load(batch).unwrap();
        assert_eq!((&*marked.agent, &*unmarked[0].agent), ("agent", "agent"));
        assert_eq!((&marked.key, &marked.body), (&unmarked[0].key, &unmarked[0].body));
        assert_eq!((marked.ends, unmarked[0].ends.len()), (vec![12, 24, 36], 0));
    }
}
