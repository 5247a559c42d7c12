//! What a power cut takes: nothing that was acknowledged to anybody.
