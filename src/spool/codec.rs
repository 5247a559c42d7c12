//! Little-endian reading and writing of the spool's fixed layouts.
//!
//! A [`Cursor`] never reads past its slice: what is not there is `None`, so that no disk content can panic a decoder
//! or make it allocate more than it was given.

/// What a checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covered {
    Header,
    Payload,
}

/// Whether the checksum of what was read is the one that was written.
pub(super) fn holds(covered: Covered, read: u32, written: u32) -> bool {
    #[cfg(test)]
    if is_left_out(covered) {
        return true;
    }
    let _ = covered;
    read == written
}

/// Names a checksum that a process does without, to show that its tests notice.
#[cfg(test)]
pub(super) const LEFT_OUT: &str = "LOG_AGENT_TEST_LEAVE_OUT";

#[cfg(test)]
fn is_left_out(covered: Covered) -> bool {
    static LEFT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let left = LEFT.get_or_init(|| std::env::var(LEFT_OUT).ok()).as_deref();
    left == Some(if covered == Covered::Header { "header" } else { "payload" })
}

/// Reads a byte slice front to back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Text behind a `u16` length; `None` where it is not UTF-8.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }

    /// Bytes behind a `u16` length.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Appends fixed-layout fields to a buffer.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_le_bytes());
    }
    /// Bytes behind a `u16` length; what is past 65,535 bytes is cut (names and paths are shorter).
    fn put_sized(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.put_u16(len);
        self.put(bytes.get(..usize::from(len)).unwrap_or(bytes));
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
