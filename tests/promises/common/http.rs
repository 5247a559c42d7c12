//! As much of HTTP/1.1 as the tests need to speak it on both sides, and to break it.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The largest body that is read.
const BODY_BYTES_MAX: u64 = 256 << 20;
/// How long an answer may take that is certain to come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A request or an answer as it was on the wire, its body without transfer coding.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub start_line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    /// A header's value, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The words of the first line: method and path, or version and status.
    pub fn word(&self, index: usize) -> &str {
        self.start_line.split(' ').nth(index).unwrap_or_default()
    }

    /// The bytes that say it on the wire, with the body's length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.start_line).into_bytes();
        for (name, value) in &self.headers {
            let framing = ["content-length", "transfer-encoding"];
            if !framing.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Reads the next message; `None` where the connection ends before it begins. `go_on` is called where the sender waits
/// to be told to send the body.
pub fn read_message<R: BufRead>(
    reader: &mut R,
    mut go_on: impl FnMut(&mut R) -> io::Result<()>,
) -> io::Result<Option<Message>> {
    let mut message = Message::default();
    if !read_line(reader, &mut message.start_line)? {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if !read_line(reader, &mut line)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        message.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if message.header("expect").is_some() {
        go_on(reader)?;
    }
    if message.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        read_chunks(reader, &mut message.body)?;
    } else if let Some(len) = message.header("content-length") {
        let len: u64 = len.parse().map_err(|_| io::ErrorKind::InvalidData)?;
        let read = reader.take(len.min(BODY_BYTES_MAX)).read_to_end(&mut message.body)?;
        if read as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(message))
}

fn read_line(reader: &mut impl BufRead, line: &mut String) -> io::Result<bool> {
    let read = reader.take(64 << 10).read_line(line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(read > 0)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        read_line(reader, &mut line)?;
        let len = u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if reader.take(len).read_to_end(body)? as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.clear();
        read_line(reader, &mut line)?;
        if len == 0 {
            return Ok(());
        }
    }
}

/// A server's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Posts `body` to `/` on a connection of its own.
pub fn post(address: SocketAddr, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    exchange(address, "POST /", headers, body)
}

/// Gets `path` on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(address, &format!("GET {path}"), &[], b"")
}

/// One request and its answer on a connection of their own.
pub fn exchange(
    address: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut headers: Vec<(String, String)> =
        headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    headers.push(("host".into(), address.to_string()));
    let message = Message { start_line: format!("{request} HTTP/1.1"), headers, body: body.to_vec() };
    // A server may answer before it has read everything; what it says is then there to be read all the same.
    let written = stream.write_all(&message.encode());
    let answer = read_message(&mut BufReader::new(stream), |_| Ok(()));
    let answer = match (answer, written) {
        (Ok(Some(answer)), _) => answer,
        (_, Err(error)) | (Err(error), _) => return Err(error),
        (Ok(None), _) => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let status = answer.word(1).parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Answer { status, headers: answer.headers, body: answer.body })
}
