//! What an agent would send, made by hand: for tests of the collector alone.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::http::{Answer, post};

/// A spool id made of a number.
pub fn spool_id(number: u128) -> String {
    format!("{number:032x}")
}

/// One batch: runs of sequence numbers of some sources, each with the line that [`Shipment::line`] gives it.
#[derive(Clone, Debug)]
pub struct Shipment {
    pub spool: String,
    pub runs: Vec<(String, RangeInclusive<u64>)>,
    pub encoding: Option<&'static str>,
}

impl Shipment {
    pub fn new(spool: &str) -> Self {
        Self { spool: spool.to_owned(), runs: Vec::new(), encoding: None }
    }

    /// Adds events of a source.
    pub fn with(mut self, source: &str, run: RangeInclusive<u64>) -> Self {
        self.runs.push((source.to_owned(), run));
        self
    }

    /// Sends the body with this content coding.
    pub fn encoded(mut self, encoding: &'static str) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// The line of an event: it follows from its identity, so that a test can say what must be stored.
    pub fn line(spool: &str, source: &str, seq: u64) -> String {
        let filler = "\"\\\t\u{e9}\u{1f600}x ".repeat(usize::try_from(seq % 7).unwrap());
        format!("{} {source} {seq:08} {filler}", &spool[28..])
    }

    pub fn events(&self) -> u64 {
        self.runs.iter().map(|(_, run)| run.end() - run.start() + 1).sum()
    }

    /// The body before any content coding.
    pub fn json(&self) -> String {
        let sources: Vec<serde_json::Value> = self
            .runs
            .iter()
            .map(|(source, run)| {
                let logs: Vec<serde_json::Value> = run
                    .clone()
                    .map(|seq| {
                        let data = Self::line(&self.spool, source, seq);
                        serde_json::json!({"data": data, "timestamp": "2024-01-15T10:30:00.123Z"})
                    })
                    .collect();
                serde_json::json!({"sourceName": source, "logs": logs})
            })
            .collect();
        serde_json::json!({"agentName": "agent1", "sources": sources}).to_string()
    }

    pub fn body(&self) -> Vec<u8> {
        let json = self.json().into_bytes();
        match self.encoding {
            None => json,
            Some("gzip") => {
                use std::io::Write as _;
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&json).unwrap();
                encoder.finish().unwrap()
            }
            Some("zstd") => zstd::bulk::compress(&json, 1).unwrap(),
            Some(other) => panic!("no coding {other}"),
        }
    }

    pub fn key_header(&self) -> String {
        format!("\"{}-1-{}\"", self.spool, self.events())
    }

    pub fn seq_header(&self) -> String {
        let ranges: Vec<String> =
            self.runs.iter().map(|(_, run)| format!("{}-{}", run.start(), run.end())).collect();
        ranges.join(", ")
    }

    /// Sends it.
    pub fn post(&self, address: SocketAddr) -> io::Result<Answer> {
        let (key, seq) = (self.key_header(), self.seq_header());
        let mut headers = vec![
            ("content-type", "application/json"),
            ("idempotency-key", key.as_str()),
            ("log-agent-seq", seq.as_str()),
        ];
        headers.extend(self.encoding.map(|encoding| ("content-encoding", encoding)));
        post(address, &headers, &self.body())
    }
}
