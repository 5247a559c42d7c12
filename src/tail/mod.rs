//! Tailers: follow the files of the sources and turn new lines into frames.
