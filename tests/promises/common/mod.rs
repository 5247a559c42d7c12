//! A small language for the tests.
