//! tailing
