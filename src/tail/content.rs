//! Where the bytes of a followed file come from: the file itself, or an archive that was made of it.
//!
//! Invariants:
//! - A read at an offset gives the bytes that are there, or fails; it never waits for more.
//! - An archive is unpacked front to back and once, in memory that does not grow with it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;

use flate2::read::MultiGzDecoder;
use rustix::io::Errno;

use super::identity;

/// Bytes unpacked in one go while the place to read on is looked for.
const SKIP_BYTES: usize = 64 * 1024;

/// Something with bytes at offsets.
pub(super) trait Content {
    /// Reads up to `into.len()` bytes at `from`, fewer only at the end.
    fn read_at(&mut self, into: &mut [u8], from: u64) -> io::Result<usize>;

    /// How many bytes there are now; where that cannot be known, more than there will ever be.
    fn size(&self) -> io::Result<u64>;
}

impl Content for &OwnedFd {
    fn read_at(&mut self, into: &mut [u8], from: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(room) = into.get_mut(filled..).filter(|room| !room.is_empty()) {
            match rustix::io::pread(&**self, room, from.saturating_add(filled as u64)) {
                Ok(0) => break,
                // Some file systems read short in the middle of a file.
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(identity::stat_handle(self)?.stamp.size)
    }
}

/// A gzip archive of one member or several, read as what it holds.
#[derive(Debug)]
pub(super) struct Archive {
    decoder: MultiGzDecoder<io::BufReader<File>>,
    /// Unpacked bytes from `start` on.
    window: Vec<u8>,
    start: u64,
    /// It could not be unpacked further than the end of the window: it is damaged, or not complete yet.
    is_broken: bool,
}

impl Archive {
    pub(super) fn new(handle: OwnedFd) -> Self {
        let file = io::BufReader::with_capacity(SKIP_BYTES, File::from(handle));
        Self { decoder: MultiGzDecoder::new(file), window: Vec::new(), start: 0, is_broken: false }
    }

    /// Unpacks towards `offset`, at most `budget` bytes. Says whether it has come there; an archive that ends before has
    /// come there as well.
    pub(super) fn seek(&mut self, offset: u64, budget: usize) -> io::Result<bool> {
        self.rewind_to(offset)?;
        let mut left = budget;
        while self.end() < offset {
            if left == 0 {
                return Ok(false);
            }
            let missing = usize::try_from(offset - self.end()).unwrap_or(usize::MAX);
            self.forget_before(offset);
            if self.unpack(missing.min(SKIP_BYTES).min(left))? == 0 {
                break;
            }
            left = left.saturating_sub(SKIP_BYTES);
        }
        self.forget_before(offset);
        Ok(true)
    }

    /// Whether nothing was passed over yet.
    pub(super) const fn is_at_start(&self) -> bool {
        self.start == 0
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.window.len() as u64)
    }

    fn forget_before(&mut self, offset: u64) {
        let len =
            usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.window.len());
        self.window.drain(..len);
        self.start = self.start.saturating_add(len as u64);
    }

    /// Begins again where `offset` has been passed already.
    fn rewind_to(&mut self, offset: u64) -> io::Result<()> {
        if offset < self.start {
            let mut file = self.decoder.get_ref().get_ref().try_clone()?;
            file.rewind()?;
            *self = Self::new(file.into());
        }
        Ok(())
    }

    /// Unpacks up to `len` more bytes; says how many, 0 only at the end.
    fn unpack(&mut self, len: usize) -> io::Result<usize> {
        let had = self.window.len();
        self.window.resize(had.saturating_add(len), 0);
        let read = loop {
            match self.decoder.read(self.window.get_mut(had..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.window.truncate(had.saturating_add(*read.as_ref().unwrap_or(&0)));
        read
    }
}

impl Content for Archive {
    fn read_at(&mut self, into: &mut [u8], from: u64) -> io::Result<usize> {
        while !self.seek(from, usize::MAX)? {}
        while self.window.len() < into.len() && !self.is_broken {
            match self.unpack(into.len() - self.window.len()) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if self.window.is_empty() => return Err(error),
                // What came before can be read nevertheless.
                Err(_) => self.is_broken = true,
            }
        }
        let len = if self.start == from { into.len().min(self.window.len()) } else { 0 };
        if let (Some(into), Some(bytes)) = (into.get_mut(..len), self.window.get(..len)) {
            into.copy_from_slice(bytes);
        }
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// A copy of a followed file.
#[derive(Debug)]
pub(super) enum Copied {
    Plain(OwnedFd),
    Archive(Box<Archive>),
}

impl Copied {
    /// Whether it had more that could not be read.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Archive(archive) if archive.is_broken)
    }
}

impl Content for Copied {
    fn read_at(&mut self, into: &mut [u8], from: u64) -> io::Result<usize> {
        match self {
            Self::Plain(handle) => (&*handle).read_at(into, from),
            Self::Archive(archive) => archive.read_at(into, from),
        }
    }

    fn size(&self) -> io::Result<u64> {
        match self {
            Self::Plain(handle) => (&handle).size(),
            Self::Archive(archive) => archive.size(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// An archive of as many members as there are `parts`.
    fn archive(parts: &[&[u8]]) -> Archive {
        let mut file = tempfile::tempfile().unwrap();
        for part in parts {
            let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        file.rewind().unwrap();
        Archive::new(file.into())
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn an_archive_reads_as_what_it_holds_at_any_offset() {
        let content = bytes(300_000);
        let mut archive = archive(&[&content[..1], &content[1..100_000], b"", &content[100_000..]]);
        let mut into = vec![0; 70_000];
        for from in [0, 5, 99_990, 100_000, 250_000, 299_999, 300_000, 400_000, 3, 0] {
            let read = archive.read_at(&mut into, from as u64).unwrap();
            let expected = content.get(from..content.len().min(from + into.len())).unwrap_or_default();
            assert!(into[..read] == *expected, "at {from}");
            assert!(archive.window.capacity() < 3 * into.len());
        }
    }

    #[test]
    fn seeking_keeps_to_its_budget() {
        let content = bytes(500_000);
        let mut archive = archive(&[&content]);
        let mut steps = 1;
        while !archive.seek(450_000, SKIP_BYTES).unwrap() {
            steps += 1;
        }
        assert_eq!(steps, 450_000_usize.div_ceil(SKIP_BYTES));
        assert!(archive.seek(600_000, usize::MAX).unwrap(), "it ends before");
    }

    #[test]
    fn what_is_no_archive_fails_and_one_that_is_cut_short_is_told_behind_what_it_has() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"plain text").unwrap();
        file.rewind().unwrap();
        assert!(Archive::new(file.into()).read_at(&mut [0; 4], 0).is_err());
        let whole = archive(&[&bytes(100_000)]);
        let mut file = whole.decoder.into_inner().into_inner();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        file.rewind().unwrap();
        let (mut archive, mut into) = (Archive::new(file.into()), vec![0; 200_000]);
        let read = archive.read_at(&mut into, 0).unwrap();
        assert!(read > 0 && read < 100_000 && archive.is_broken, "{read}");
        assert_eq!(into[..read], bytes(read));
        assert_eq!(archive.read_at(&mut into, 10).unwrap(), read - 10, "again");
        assert!(archive.seek(100_000, usize::MAX).is_err());
    }
}
