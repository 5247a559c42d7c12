//! Wire formats: a batch's events encoded as a request body.
