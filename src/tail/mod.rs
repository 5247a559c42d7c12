//! Tailers: follow the files of the sources and turn new lines into frames.
pub mod discover;
mod file;
mod identity;
mod lines;
mod watch;
