//! Killed at an exact call.

use super::*;
