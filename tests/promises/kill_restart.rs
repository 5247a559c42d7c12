//! kill_restart
