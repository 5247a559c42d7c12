//! Looking into a spool.
