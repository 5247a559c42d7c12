//! Wire formats: a batch's events encoded as a request body.
//!
//! Invariant: an encoder is a pure function of the agent's name and the content. The same content gives the same bytes
//! in every run and in every version that writes the same format, which is what makes a resend equal to the first send.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod json;

pub use json::JsonEncoder;
