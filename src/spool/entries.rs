//! Entries: the layouts that frames, snapshots and the ledger share. `spool-format.md` has them byte by byte.
//!
//! Invariants:
//! - What is put is taken back equal; what is cut short, or names what this version does not know, is `None`.
//! - Pure: slices in, values out.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::codec::{Cursor, Put as _};
use super::files::{FileAccount, FileRecord, Loss, SourceBytes};
use super::segment::Account;
use crate::event::{
    Checkpoint, FileIdentity, FileOffset, SkipReason, Skipped, Skips, SourceName, Timestamp, Witness,
};

/// Bytes of a skip entry.
pub(super) const SKIP_LEN: usize = 17;
/// Bytes of a checkpoint entry without its names.
pub(super) const CHECKPOINT_FIXED: usize = 56;
/// The longest checkpoint entry.
pub(super) const CHECKPOINT_MAX: usize = CHECKPOINT_FIXED + SourceName::MAX_BYTES + u16::MAX as usize;

pub(super) fn put_account(out: &mut Vec<u8>, account: &Account) {
    out.put_u64(account.acknowledged);
    out.put_u64(account.dead);
    out.put_u64(account.dropped);
    out.put_u64(account.damaged);
    out.put_u64(account.earlier);
}

pub(super) fn take_account(cursor: &mut Cursor<'_>) -> Option<Account> {
    Some(Account {
        acknowledged: cursor.u64()?,
        dead: cursor.u64()?,
        dropped: cursor.u64()?,
        damaged: cursor.u64()?,
        earlier: cursor.u64()?,
    })
}

pub(super) fn put_checkpoint(out: &mut Vec<u8>, checkpoint: &Checkpoint) {
    out.put_sized(checkpoint.source.as_str().as_bytes());
    out.put_sized(checkpoint.path.as_os_str().as_bytes());
    put_identity(out, &checkpoint.identity);
    out.put_u16(checkpoint.head.len);
    out.put_u64(checkpoint.head.hash);
    out.put_u16(checkpoint.tail.len);
    out.put_u64(checkpoint.tail.hash);
    out.put_u64(checkpoint.offset.0);
}

pub(super) fn take_checkpoint(cursor: &mut Cursor<'_>) -> Option<Checkpoint> {
    Some(Checkpoint {
        source: SourceName::from(cursor.text()?),
        path: take_path(cursor)?,
        identity: take_identity(cursor)?,
        head: Witness { len: cursor.u16()?, hash: cursor.u64()? },
        tail: Witness { len: cursor.u16()?, hash: cursor.u64()? },
        offset: FileOffset(cursor.u64()?),
    })
}

/// One reason with what was skipped for it.
pub(super) fn put_skip(out: &mut Vec<u8>, reason: SkipReason, skipped: Skipped) {
    out.put_u8(reason as u8);
    out.put_u64(skipped.bytes);
    out.put_u64(skipped.lines);
}

/// Adds one reason to `skips`.
pub(super) fn take_skip(cursor: &mut Cursor<'_>, skips: &mut Skips) -> Option<()> {
    let reason = SkipReason::from_u8(cursor.u8()?)?;
    skips.add(reason, cursor.u64()?, cursor.u64()?);
    Some(())
}

fn put_skips(out: &mut Vec<u8>, skips: &Skips) {
    let entries = skips.iter();
    out.put_u8(u8::try_from(entries.len()).unwrap_or(u8::MAX));
    for (reason, skipped) in entries {
        put_skip(out, reason, skipped);
    }
}

fn take_skips(cursor: &mut Cursor<'_>) -> Option<Skips> {
    let mut skips = Skips::default();
    for _ in 0..cursor.u8()? {
        take_skip(cursor, &mut skips)?;
    }
    Some(skips)
}

/// A file: its checkpoint and what became of its bytes.
pub(super) fn put_file(out: &mut Vec<u8>, record: &FileRecord) {
    put_checkpoint(out, &record.checkpoint);
    out.put_u64(record.account.spooled);
    out.put_i64(record.account.read_at.millis());
    out.put_u64(record.account.restarts);
    put_skips(out, &record.account.skips);
}

pub(super) fn take_file(cursor: &mut Cursor<'_>) -> Option<FileRecord> {
    Some(FileRecord {
        checkpoint: take_checkpoint(cursor)?,
        account: FileAccount {
            spooled: cursor.u64()?,
            read_at: Timestamp::from_millis(cursor.i64()?),
            restarts: cursor.u64()?,
            skips: take_skips(cursor)?,
        },
    })
}

/// What became of a source's bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &SourceBytes) {
    out.put_u64(bytes.read);
    out.put_u64(bytes.spooled);
    put_skips(out, &bytes.skips);
}

pub(super) fn take_bytes(cursor: &mut Cursor<'_>) -> Option<SourceBytes> {
    Some(SourceBytes { read: cursor.u64()?, spooled: cursor.u64()?, skips: take_skips(cursor)? })
}

pub(super) fn put_loss(out: &mut Vec<u8>, loss: &Loss) {
    out.put_sized(loss.source.as_str().as_bytes());
    out.put_sized(loss.path.as_os_str().as_bytes());
    put_identity(out, &loss.identity);
    out.put_u64(loss.start.0);
    out.put_u64(loss.end.0);
    out.put_u8(loss.reason as u8);
    out.put_i64(loss.at.millis());
}

pub(super) fn take_loss(cursor: &mut Cursor<'_>) -> Option<Loss> {
    Some(Loss {
        source: SourceName::from(cursor.text()?),
        path: take_path(cursor)?,
        identity: take_identity(cursor)?,
        start: FileOffset(cursor.u64()?),
        end: FileOffset(cursor.u64()?),
        reason: SkipReason::from_u8(cursor.u8()?)?,
        at: Timestamp::from_millis(cursor.i64()?),
    })
}

fn put_identity(out: &mut Vec<u8>, identity: &FileIdentity) {
    out.put_u64(identity.dev);
    out.put_u64(identity.ino);
    out.put_u64(identity.birth_ns);
}

fn take_identity(cursor: &mut Cursor<'_>) -> Option<FileIdentity> {
    Some(FileIdentity { dev: cursor.u64()?, ino: cursor.u64()?, birth_ns: cursor.u64()? })
}

fn take_path(cursor: &mut Cursor<'_>) -> Option<PathBuf> {
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(cursor.sized()?)))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spool::frame::tests::checkpoint;

    pub(in crate::spool) fn skips() -> impl Strategy<Value = Skips> {
        let reason = prop::sample::select(&SkipReason::ALL[..]);
        prop::collection::vec((reason, any::<(u32, u32)>()), 0..5).prop_map(|entries| {
            let mut skips = Skips::default();
            for (reason, (bytes, lines)) in entries {
                skips.add(reason, bytes.into(), lines.into());
            }
            skips
        })
    }

    pub(in crate::spool) fn file() -> impl Strategy<Value = FileRecord> {
        (checkpoint(), skips(), any::<(u64, i64, u64)>()).prop_map(
            |(checkpoint, skips, (spooled, read_at, restarts))| FileRecord {
                checkpoint,
                account: FileAccount { spooled, skips, read_at: Timestamp::from_millis(read_at), restarts },
            },
        )
    }

    pub(in crate::spool) fn bytes() -> impl Strategy<Value = SourceBytes> {
        (any::<(u64, u64)>(), skips()).prop_map(|((read, spooled), skips)| SourceBytes {
            read,
            spooled,
            skips,
        })
    }

    pub(in crate::spool) fn loss() -> impl Strategy<Value = Loss> {
        (checkpoint(), prop::sample::select(&SkipReason::ALL[..]), any::<(u64, i64)>()).prop_map(
            |(checkpoint, reason, (start, at))| Loss {
                source: checkpoint.source,
                path: checkpoint.path,
                identity: checkpoint.identity,
                start: FileOffset(start),
                end: checkpoint.offset,
                reason,
                at: Timestamp::from_millis(at),
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_is_taken_as_it_was_put_and_not_where_it_is_cut_short(
            file in file(), bytes in bytes(), loss in loss(), cut in any::<prop::sample::Index>(),
        ) {
            let mut out = Vec::new();
            put_file(&mut out, &file);
            prop_assert_eq!(take_file(&mut Cursor::new(&out)), Some(file));
            prop_assert_eq!(take_file(&mut Cursor::new(&out[..cut.index(out.len())])), None);
            out.clear();
            put_bytes(&mut out, &bytes);
            prop_assert_eq!(take_bytes(&mut Cursor::new(&out)), Some(bytes));
            prop_assert_eq!(take_bytes(&mut Cursor::new(&out[..cut.index(out.len())])), None);
            out.clear();
            put_loss(&mut out, &loss);
            prop_assert_eq!(take_loss(&mut Cursor::new(&out)), Some(loss));
            prop_assert_eq!(take_loss(&mut Cursor::new(&out[..cut.index(out.len())])), None);
        }
    }

    #[test]
    fn a_reason_of_a_newer_version_is_not_taken() {
        let mut out = Vec::new();
        put_skip(&mut out, SkipReason::Nul, Skipped { bytes: 1, lines: 2 });
        assert_eq!(out.len(), SKIP_LEN);
        out[0] = 8;
        assert_eq!(take_skip(&mut Cursor::new(&out), &mut Skips::default()), None);
    }
}
