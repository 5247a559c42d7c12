//! What a process asked of the kernel, in order, as strace saw it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PATIENCE, wait_for, wrap};

/// The calls that say what is written, made durable, and sent.
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,pread64,fdatasync,fsync,sync_file_range,sendto,sendmsg,open,\
                     openat,ftruncate,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat";

/// A call that has returned.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    /// Its place among the starts and ends of all calls: what ended before another began was done before it.
    pub begun: usize,
    pub ended: usize,
    /// Arguments and result as strace prints them.
    pub text: String,
    /// The path of the first descriptor among its arguments.
    pub path: PathBuf,
    /// The bytes of all strings in it, in order: what was written, or read, or the path.
    pub bytes: Vec<u8>,
    pub worked: bool,
}

/// Lets `command` run under strace, which writes to `to` and is told `injected` beside. The child is the program itself,
/// not strace.
pub fn traced(command: &mut Command, to: &Path, injected: &[&str]) {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-y", "-s", "1000000", "-e", CALLS]).args(injected).arg("-o").arg(to);
    wrap(command, strace);
}

/// Reads the trace of a process that has ended. Paths in `dir` become relative to it.
pub fn read_trace(file: &Path, dir: &Path) -> Vec<Call> {
    let mut text = String::new();
    wait_for(PATIENCE, "strace has written everything", || {
        text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        text.lines()
            .next_back()
            .is_some_and(|line| line.contains("+++ exited") || line.contains("+++ killed"))
    });
    parse(&text, dir)
}

fn parse(text: &str, dir: &Path) -> Vec<Call> {
    let mut begun: HashMap<&str, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest.starts_with(['+', '-']) {
            continue;
        }
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, (at, start.to_owned()));
        } else if let Some((_, end)) = rest.split_once(" resumed>").filter(|_| rest.starts_with("<... ")) {
            let (start_at, mut start) = begun.remove(pid).expect("a call that began");
            start.push_str(end);
            calls.extend(call(start_at, at, &start, dir));
        } else {
            calls.extend(call(at, at, rest, dir));
        }
    }
    calls
}

fn call(begun: usize, ended: usize, text: &str, dir: &Path) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let bytes = strings(arguments);
    let descriptor = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    // Of those that take a path, the descriptor is a directory that the path may be relative to.
    let takes_path = ["open", "mkdir", "rename", "unlink"].iter().any(|call| name.starts_with(call));
    let path = match descriptor {
        _ if takes_path => dir.join(String::from_utf8_lossy(&first_string(arguments)).as_ref()),
        Some((path, _)) => PathBuf::from(path),
        None => PathBuf::new(),
    };
    let path = path.strip_prefix(dir).map(Path::to_owned).unwrap_or(path);
    let worked = !result.trim_start().starts_with(['-', '?']);
    Some(Call { name: name.to_owned(), begun, ended, text: text.to_owned(), path, bytes, worked })
}

/// The bytes of every quoted string, one after the other.
fn strings(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(quote) = memchr::memchr(b'"', rest) {
        rest = unescape(&rest[quote + 1..], &mut bytes);
    }
    bytes
}

fn first_string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(quote) = memchr::memchr(b'"', text.as_bytes()) {
        unescape(&text.as_bytes()[quote + 1..], &mut bytes);
    }
    bytes
}

/// Reads a string up to its closing quote, with the escapes of C, and returns what is behind that.
fn unescape<'a>(text: &'a [u8], bytes: &mut Vec<u8>) -> &'a [u8] {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => return &text[at..],
            b'\\' => {
                let escaped = text[at];
                let digits =
                    text[at..].iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                if digits > 0 {
                    let octal = std::str::from_utf8(&text[at..at + digits]).unwrap();
                    bytes.push(u8::from_str_radix(octal, 8).unwrap());
                    at += digits;
                } else {
                    bytes.push(match escaped {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'v' => 0x0B,
                        b'f' => 0x0C,
                        other => other,
                    });
                    at += 1;
                }
            }
            byte => bytes.push(byte),
        }
    }
    &[]
}

#[test]
fn a_trace_is_read_as_strace_writes_it() {
    let text = "7 openat(AT_FDCWD</x>, \"spool/a\", O_RDWR|O_CREAT, 0600) = 3</x/spool/a>\n\
                8 fsync(4</x/spool> <unfinished ...>\n\
                7 writev(3</x/spool/a>, [{iov_base=\"a\\0\\1\\\"2\", iov_len=5}, {iov_base=\"\\r\\0018\", iov_len=3}], 2) = 8\n\
                8 <... fsync resumed>)               = 0\n\
                7 fdatasync(3</x/spool/a>) = -1 EIO (Input/output error)\n\
                7 +++ exited with 0 +++\n";
    let calls = parse(text, Path::new("/x"));
    let said: Vec<_> =
        calls.iter().map(|call| (call.name.as_str(), call.path.to_str().unwrap(), call.worked)).collect();
    assert_eq!(
        said,
        [
            ("openat", "spool/a", true),
            ("writev", "spool/a", true),
            ("fsync", "spool", true),
            ("fdatasync", "spool/a", false)
        ]
    );
    assert_eq!((calls[2].begun, calls[2].ended), (1, 3));
    assert_eq!(calls[1].bytes, b"a\0\x01\"2\r\x018");
}
