//! Files, pipes and standard input as content that can be read again from any byte: opened once, decompressed by what
//! the bytes say, spooled to an unnamed temporary file where it cannot be rewound. Knows no formats but compression.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

/// The path that means standard input.
pub const STDIN: &str = "-";

/// How the bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes.
    pub fn of(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// Unpacks a stream; several members or frames one after another are one content.
    pub fn decoder<'a, R: Read + Send + 'a>(self, source: R) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Compression::None => Box::new(source),
            Compression::Gzip => {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(256 * 1024, source)))
            }
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(source)?),
        })
    }
}

/// An opened source.
#[derive(Debug)]
pub struct Content {
    /// As the user named it.
    pub name: String,
    /// When it was last written, microseconds since 1970; now for pipes.
    pub modified: i64,
    file: File,
    compression: Compression,
}

impl Content {
    /// Opens a path, or standard input for `-`. What cannot be rewound is copied to a temporary file first, to its end.
    ///
    /// # Errors
    /// Missing, unreadable, a folder, or no room for the copy.
    pub fn open(path: &Path) -> io::Result<Content> {
        let name =
            if path.as_os_str() == STDIN { "standard input".to_owned() } else { path.display().to_string() };
        let (mut file, modified) = if path.as_os_str() == STDIN {
            (spool(io::stdin().lock())?, now_micros())
        } else {
            let file = File::open(path)?;
            let meta = file.metadata()?;
            if meta.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, not a file"));
            }
            if meta.is_file() {
                let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
                (file, modified.map_or_else(now_micros, |d| d.as_micros() as i64))
            } else {
                (spool(file)?, now_micros())
            }
        };
        let mut head = Vec::with_capacity(4);
        Read::by_ref(&mut file).take(4).read_to_end(&mut head)?;
        Ok(Content { name, modified, file, compression: Compression::of(&head) })
    }

    /// The content from this byte of it on (after unpacking).
    pub fn reader_at(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.file.try_clone()?;
        if self.compression == Compression::None {
            file.seek(SeekFrom::Start(offset))?;
            return Ok(Box::new(file));
        }
        file.seek(SeekFrom::Start(0))?;
        let mut reader = self.compression.decoder(file)?;
        let skipped = io::copy(&mut Read::by_ref(&mut reader).take(offset), &mut io::sink())?;
        if skipped < offset {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        Ok(reader)
    }

    /// The first bytes, at most `max`.
    pub fn head(&self, max: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.reader_at(0)?.take(max as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Reads all of it once: its length and hash, the hashes of the given prefixes, and every line for `each_line`.
    pub fn scan(&self, prefixes: &[u64], mut each_line: Option<&mut dyn FnMut(&[u8])>) -> io::Result<Scan> {
        let mut marks: Vec<u64> = prefixes.to_vec();
        marks.sort_unstable();
        marks.dedup();
        let mut marks = marks.into_iter().peekable();
        let mut scan = Scan { bytes: 0, hash: String::new(), prefixes: BTreeMap::new() };
        let mut hasher = Sha256::new();
        let mut reader = self.reader_at(0)?;
        let mut block = vec![0u8; 256 * 1024];
        let mut partial: Vec<u8> = Vec::new();
        loop {
            let n = match reader.read(&mut block) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let mut rest = &block[..n];
            while let Some(&mark) = marks.peek() {
                let Some(before) =
                    mark.checked_sub(scan.bytes).map(|b| b as usize).filter(|b| *b <= rest.len())
                else {
                    break;
                };
                hasher.update(&rest[..before]);
                scan.bytes += before as u64;
                rest = &rest[before..];
                scan.prefixes.insert(mark, hex::encode(hasher.clone().finalize()));
                marks.next();
            }
            hasher.update(rest);
            scan.bytes += rest.len() as u64;
            if let Some(f) = each_line.as_deref_mut() {
                lines(&block[..n], &mut partial, f);
            }
            if n == 0 {
                break;
            }
        }
        if let Some(f) = each_line {
            f(&partial);
        }
        scan.hash = hex::encode(hasher.finalize());
        Ok(scan)
    }
}

/// Only the beginnings of lines matter to those who look at them here.
const LINE_HEAD: usize = 256;

fn lines(mut block: &[u8], partial: &mut Vec<u8>, f: &mut dyn FnMut(&[u8])) {
    while let Some(i) = memchr::memchr(b'\n', block) {
        if partial.is_empty() {
            f(&block[..i]);
        } else {
            let room = LINE_HEAD.saturating_sub(partial.len());
            partial.extend_from_slice(&block[..i.min(room)]);
            f(partial);
            partial.clear();
        }
        block = &block[i + 1..];
    }
    let room = LINE_HEAD.saturating_sub(partial.len());
    partial.extend_from_slice(&block[..block.len().min(room)]);
}

/// What one reading of a content tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Length after unpacking.
    pub bytes: u64,
    /// SHA-256 of it, hexadecimal.
    pub hash: String,
    /// SHA-256 of its first n bytes, for each n asked for that it reaches.
    pub prefixes: BTreeMap<u64, String>,
}

fn now_micros() -> i64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

fn spool(mut source: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut source, &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
