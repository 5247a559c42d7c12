//! Where a test takes place: a temporary directory, a seed and a configuration.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tempfile::TempDir;
use toml::{Table, Value};

/// A temporary directory with `logs/`, `spool/` (made by the agent), `log-agent.config` and what the processes say.
#[derive(Debug)]
pub struct Scene {
    dir: TempDir,
    spool: &'static str,
    seed: u64,
}

impl Scene {
    /// Sets the scene for the test of this name.
    pub fn new(name: &str) -> Self {
        let mut dir = tempfile::Builder::new().prefix("log-agent-test-").tempdir().unwrap();
        dir.disable_cleanup(std::env::var_os("LOG_AGENT_TEST_KEEP").is_some());
        fs::create_dir(dir.path().join("logs")).unwrap();
        let seed = match std::env::var("LOG_AGENT_TEST_SEED") {
            Ok(seed) => seed.parse().expect("LOG_AGENT_TEST_SEED is not a number"),
            Err(_) => RandomState::new().hash_one(name),
        };
        println!("{name}: LOG_AGENT_TEST_SEED={seed}, in {}", dir.path().display());
        Self { dir, spool: "spool", seed }
    }

    /// The path of something in the scene.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn spool_dir(&self) -> PathBuf {
        self.path(self.spool)
    }

    /// Puts the spool somewhere else in the scene.
    pub fn with_spool_in(self, relative: &'static str) -> Self {
        Self { spool: relative, ..self }
    }

    pub fn config_path(&self) -> PathBuf {
        self.path("log-agent.config")
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A generator that gives the same numbers for the same seed and purpose.
    pub fn rng(&self, purpose: &str) -> SmallRng {
        SmallRng::seed_from_u64(self.seed ^ xxhash_rust::xxh3::xxh3_64(purpose.as_bytes()))
    }

    /// Begins a configuration. It has what is required and sends what it has after a tenth of a second, so that tests
    /// of a few lines do not wait.
    pub fn config(&self) -> ConfigBuilder<'_> {
        let mut global = Table::new();
        global.insert("agent_name".into(), "agent1".into());
        global.insert("send_type".into(), "HTTP".into());
        global.insert("interval_secs".into(), 0.1.into());
        ConfigBuilder { scene: self, global, sources: Vec::new() }
    }
}

/// A configuration in the making.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConfigBuilder<'a> {
    scene: &'a Scene,
    global: Table,
    sources: Vec<Table>,
}

impl ConfigBuilder<'_> {
    /// Where the agent sends.
    pub fn end_point(self, url: impl Into<String>) -> Self {
        self.global("end_point", url.into())
    }

    /// A key of `[global]`.
    pub fn global(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.global.insert(key.into(), value.into());
        self
    }

    /// A key of a table in `[global]`, as in `table("tls", "ca_file", path)`.
    pub fn table(mut self, table: &str, key: &str, value: impl Into<Value>) -> Self {
        let entry = self.global.entry(table).or_insert_with(|| Table::new().into());
        entry.as_table_mut().unwrap().insert(key.into(), value.into());
        self
    }

    /// A source that follows a path or glob of the scene.
    pub fn source(mut self, name: &str, log_path: &str) -> Self {
        let mut source = Table::new();
        source.insert("name".into(), name.into());
        source.insert("log_path".into(), self.scene.path(log_path).to_str().unwrap().into());
        source.insert("delay_ms".into(), 50.into());
        self.sources.push(source);
        self
    }

    /// A key of the source that was added last.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.sources.last_mut().expect("no source yet").insert(key.into(), value.into());
        self
    }

    /// A key of a table in the source that was added last, as in `within("multiline", "preset", "java")`.
    pub fn within(mut self, table: &str, key: &str, value: impl Into<Value>) -> Self {
        let source = self.sources.last_mut().expect("no source yet");
        let entry = source.entry(table).or_insert_with(|| Table::new().into());
        entry.as_table_mut().unwrap().insert(key.into(), value.into());
        self
    }

    /// A `[[sources.redact]]` of the source that was added last.
    pub fn redact(mut self, pattern: &str, replacement: &str) -> Self {
        let source = self.sources.last_mut().expect("no source yet");
        let entry = source.entry("redact").or_insert_with(|| Value::Array(Vec::new()));
        let mut redact = Table::new();
        redact.insert("pattern".into(), pattern.into());
        redact.insert("replacement".into(), replacement.into());
        entry.as_array_mut().unwrap().push(redact.into());
        self
    }

    /// The configuration as TOML.
    pub fn text(&self) -> String {
        let mut all = Table::new();
        all.insert("global".into(), self.global.clone().into());
        let sources: Vec<Value> = self.sources.iter().cloned().map(Value::from).collect();
        all.insert("sources".into(), sources.into());
        toml::to_string(&all).unwrap()
    }

    /// Writes it to where [`super::Agent::start`] looks.
    pub fn write(&self) -> PathBuf {
        let path = self.scene.config_path();
        fs::write(&path, self.text()).unwrap();
        path
    }
}
