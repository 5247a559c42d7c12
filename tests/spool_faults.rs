//! spool_faults
