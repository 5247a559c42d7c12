//! The targets without a fuzzer: what the encoders write, and seeded mutations of it.
//!
//! The seeds are committed, so that a fuzzer begins with what decodes; the test that compares them with what the encoders
//! write now writes them with `LOG_AGENT_TEST_WRITE_SEEDS=1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

/// Mutations of a target in a run; `LOG_AGENT_TEST_CASES` multiplies them by a hundredth of itself.
const MUTATIONS: u64 = 1500;
/// The longest input, as a fuzzer's is by default.
const INPUT_BYTES_MAX: usize = 4096;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// Input for each target: bytes that it decodes.
fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    const KEY: &str = "0123456789abcdef0123456789abcdef-1-2";
    const LOG: &str = r#"{"data":"x","timestamp":"2024-01-15T10:30:00.123Z"}"#;
    let sources = format!(r#""agentName":"a","sources":[{{"sourceName":"s","logs":[{LOG},{LOG}]}}]"#);
    let body = format!("{{{sources}}}");
    let request =
        |coding: &str, body: &[u8]| [format!("{coding}\n\"{KEY}\"\n7-8\n").as_bytes(), body].concat();
    let assembled = |rules: [u8; 3], text: &str| [&rules[..], text.as_bytes()].concat();
    let java = "java.E: a\n\tat a.B(C:1)\nCaused by: x\n\t... 2 more\nplain\n";
    let cri = "2024-01-15T10:30:00.5Z stdout P one \n2024-01-15T10:30:00.5Z stdout F line\n";
    let docker = r#"{"log":"a \"line\"\n","stream":"stdout","time":"2024-01-15T10:30:00.5Z"}"#;
    let config = r#"
[global]
agent_name = "a"
end_point = "http://localhost:1/"
send_type = "HTTP"
segment_bytes = "1 MiB"
[global.auth]
type = "bearer"
token = "t"
[[sources]]
name = "app"
log_path = "/var/log/*.log"
include_lines = ["a+"]
[sources.multiline]
preset = "java"
"#;
    let mut seeds: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let mut add = |target, bytes: Vec<u8>| seeds.entry(target).or_default().push(bytes);
    crate::spool::fuzzing_seeds().into_iter().for_each(|(target, bytes)| add(target, bytes));
    add("lines", assembled([3, 40, 9], "one\ntwo\r\n\0\0\0\nwithout end"));
    add("lines", assembled([7, 255, 200], java));
    add("lines", [&[0, 20, 7][..], b"\xff\xfea\0\n\0b\0\n\0"].concat());
    add("cri", assembled([3, 40, 30], cri));
    add("docker_json", assembled([3, 40, 30], &format!("{docker}\n{docker}\n")));
    add("gzip", gzip(b"one line\nanother\n"));
    add("gzip", [gzip(b"one\n"), gzip(b"member\n")].concat());
    add("config", config.as_bytes().to_vec());
    add("request", request("identity", body.as_bytes()));
    add("request", request("gzip", &gzip(body.as_bytes())));
    add("request", request("zstd", &zstd::encode_all(body.as_bytes(), 1).unwrap()));
    add("index", format!(r#"{{"out":7,"seen":[["{}","app",1,9]]}}"#, &KEY[..32]).into_bytes());
    let all = format!(r#"["{0}","a",1,{1}],["{0}","b",1,{1}]"#, &KEY[..32], u64::MAX - 1);
    add("index", format!(r#"{{"out":7,"seen":[{all}]}}"#).into_bytes());
    add("retry_after", b"120".to_vec());
    add("retry_after", b"Sun, 06 Nov 1994 08:49:37 GMT".to_vec());
    if cfg!(feature = "websocket") {
        add("websocket_frame", format!(r#"{{"key":"{KEY}","seq":"7-8",{sources}}}"#).into_bytes());
        add("websocket_answer", format!(r#"{{"ack":"{KEY}"}}"#).into_bytes());
        let nack = format!(r#"{{"nack":"{KEY}","status":503,"reason":"busy","retryAfter":1.5}}"#);
        add("websocket_answer", nack.into_bytes());
    }
    seeds
}

/// Changes as a fuzzer makes them: bits, interesting numbers, pieces cut out, doubled, or taken from another seed.
fn mutate(rng: &mut SmallRng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.random_range(1..5) {
        let len = bytes.len();
        let at = rng.random_range(0..=len);
        let piece = at..rng.random_range(at..=len.min(at + 32));
        match rng.random_range(0..7) {
            0 | 1 if at < len => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < len => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'"'][rng.random_range(0..7)],
            3 => {
                let width = [2, 4, 8][rng.random_range(0..3)];
                let number = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 32, 1 << 16][rng.random_range(0..6)];
                let end = len.min(at + width);
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            4 => drop(bytes.drain(piece)),
            5 => bytes.splice(at..at, bytes[piece.clone()].to_vec()).for_each(drop),
            _ => {
                let from = rng.random_range(0..=other.len());
                let taken = other[from..other.len().min(from + 64)].to_vec();
                bytes.splice(piece, taken).for_each(drop);
            }
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

/// Runs a target on its seeds and on mutations of them.
fn try_out(target: &Target) {
    let seed = crate::spool::tests::seed();
    let cases = std::env::var("LOG_AGENT_TEST_CASES").map_or(100, |cases| cases.parse::<u64>().unwrap());
    let cases = MUTATIONS * cases / 100;
    // What opens files costs a hundred times as much.
    let cases = if target.name == "spool" { cases / 20 } else { cases };
    let mut rng = SmallRng::seed_from_u64(seed);
    let seeds = &seeds()[target.name];
    for bytes in seeds {
        (target.run)(bytes);
    }
    for case in 0..cases {
        let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
        let other = &seeds[rng.random_range(0..seeds.len())];
        mutate(&mut rng, &mut bytes, other);
        let tried = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(tried.is_ok(), "{}, case {case}, LOG_AGENT_TEST_SEED={seed}: {bytes:02x?}", target.name);
    }
}

#[test]
fn no_bytes_confuse_a_decoder_of_the_spool() {
    for name in ["frame", "segment_header", "segment", "snapshot", "entries", "ledger", "dead_letter"] {
        try_out(TARGETS.iter().find(|target| target.name == name).unwrap());
    }
}

#[test]
fn no_bytes_in_a_segment_keep_a_spool_from_opening() {
    try_out(TARGETS.iter().find(|target| target.name == "spool").unwrap());
}

#[test]
fn no_bytes_confuse_a_decoder_of_log_files_configurations_and_messages() {
    let of_the_spool =
        ["frame", "segment_header", "segment", "snapshot", "entries", "ledger", "dead_letter", "spool"];
    TARGETS.iter().filter(|target| !of_the_spool.contains(&target.name)).for_each(try_out);
}

#[test]
fn the_committed_seeds_are_what_the_encoders_write() {
    let dir = fuzz_dir().join("seeds");
    let path = |target: &str, number: usize| dir.join(target).join(number.to_string());
    let seeds = seeds();
    if std::env::var_os("LOG_AGENT_TEST_WRITE_SEEDS").is_some() {
        for (target, seeds) in &seeds {
            std::fs::create_dir_all(dir.join(target)).unwrap();
            for (number, seed) in seeds.iter().enumerate() {
                std::fs::write(path(target, number), seed).unwrap();
            }
        }
    }
    for (target, seeds) in &seeds {
        for (number, seed) in seeds.iter().enumerate() {
            let committed = std::fs::read(path(target, number)).unwrap();
            assert!(committed == *seed, "{target}/{number}: write it with LOG_AGENT_TEST_WRITE_SEEDS=1");
        }
    }
}

#[test]
fn every_target_is_a_program_with_seeds() {
    let manifest = std::fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    let seeds = seeds();
    for Target { name, .. } in TARGETS {
        assert!(seeds.contains_key(name), "{name} has no seeds");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not in fuzz/Cargo.toml");
        let program = std::fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", bytes)")), "{program}");
    }
}
