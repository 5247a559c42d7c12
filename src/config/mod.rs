//! The configuration: what was accepted cannot be invalid.

mod types;

pub use types::{
    Auth, ClientIdentity, Compression, Config, EndPoint, Global, OnFull, Secret, SendType, SourceConfig,
    StartAt, SyncMode, Tls,
};
