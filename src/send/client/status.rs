//! What a status says of a batch: the one table, for every transport that has statuses.

/// What a server means by a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::send) enum Verdict {
    /// It has taken every event: 2xx.
    Taken,
    /// It may take it later: 408, 425, 429, 5xx.
    Later,
    /// It will never take this content: 400, 413, 422.
    Refused,
    /// The endpoint or the configuration is at fault: everything else.
    Fault,
}

impl Verdict {
    /// What `status` means.
    pub(in crate::send) const fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Taken,
            408 | 425 | 429 | 500..=599 => Self::Later,
            400 | 413 | 422 => Self::Refused,
            _ => Self::Fault,
        }
    }
}
