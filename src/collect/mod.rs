//! The reference collector: stores every event once, however often it is sent.
