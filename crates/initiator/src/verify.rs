//! Compares what is on disk, or is read through a path, with what the ledger says must be there.

use crate::client::{Client, ClientError};
use crate::core::command::Command;
use crate::core::ledger::{Ledger, Wrong};
use crate::core::stamp::BLOCK;
use alloc::vec;
use alloc::vec::Vec;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Blocks looked at.
    pub checked: u64,
    /// Blocks that hold what they may not.
    pub wrong: u64,
    /// The first of them, at most [`NAMED`].
    pub named: Vec<Wrong>,
}

/// So many wrong blocks are named; the rest is only counted.
pub const NAMED: usize = 20;
/// Blocks read at a time.
const CHUNK: usize = 1024;

impl Findings {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.wrong == 0
    }

    pub(crate) fn note(&mut self, wrong: Wrong) {
        self.wrong += 1;
        if self.named.len() < NAMED {
            self.named.push(wrong);
        }
    }
}

/// Every 512-byte block of an image, from its first byte on, which is block 0.
///
/// # Errors
/// The file can't be read.
pub fn image(path: &Path, ledger: &mut Ledger) -> io::Result<Findings> {
    let mut file = File::open(path)?;
    let mut findings = Findings::default();
    let mut buffer = vec![0; CHUNK * BLOCK];
    let since = ledger.begin_read();
    loop {
        let len = read_full(&mut file, &mut buffer)?;
        if len == 0 {
            break;
        }
        for block in buffer[..len].chunks_exact(BLOCK) {
            if let Err(wrong) = ledger.check(since, findings.checked, block) {
                findings.note(wrong);
            }
            findings.checked += 1;
        }
    }
    ledger.end_read(since);
    Ok(findings)
}

/// Every block that was ever written, read through a session. `block_size`: of the disk.
///
/// # Errors
/// The session ended. A refused READ counts as wrong blocks.
pub fn through(
    client: &mut Client,
    lun: u8,
    block_size: u32,
    ledger: &mut Ledger,
) -> Result<Findings, ClientError> {
    let per_block = u64::from(block_size / 512);
    let mut findings = Findings::default();
    let mut written: Vec<u64> = ledger.written().map(|lba| lba / per_block).collect();
    written.dedup();
    let mut rest = written.as_slice();
    while let Some(first) = rest.first().copied() {
        let run = rest
            .iter()
            .zip(first..)
            .take(CHUNK / 8)
            .take_while(|(lba, expected)| *lba == expected)
            .count();
        rest = &rest[run..];
        let blocks = u32::try_from(run).expect("a chunk is small");
        let since = ledger.begin_read();
        let reply =
            client.run_past_attentions(&Command::read(lun, first, blocks, blocks * block_size))?;
        for (lba, at) in (first * per_block..).zip((0..run * block_size as usize).step_by(BLOCK)) {
            // A block that could not be read is as wrong as can be.
            let block = reply.data.get(at..at + BLOCK).unwrap_or(&[0xff; BLOCK]);
            if let Err(wrong) = ledger.check(since, lba, block) {
                findings.note(wrong);
            }
            findings.checked += 1;
        }
        ledger.end_read(since);
    }
    Ok(findings)
}

/// The first byte in which two files differ; a shorter file differs at its end.
///
/// # Errors
/// A file can't be read.
pub fn first_difference(a: &Path, b: &Path) -> io::Result<Option<u64>> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut in_a, mut in_b) = (vec![0; CHUNK * BLOCK], vec![0; CHUNK * BLOCK]);
    let mut at = 0;
    loop {
        let len = (read_full(&mut a, &mut in_a)?, read_full(&mut b, &mut in_b)?);
        let common = len.0.min(len.1);
        if let Some(first) = in_a[..common]
            .iter()
            .zip(&in_b[..common])
            .position(|(a, b)| a != b)
        {
            return Ok(Some(at + first as u64));
        }
        at += common as u64;
        if len.0 != len.1 {
            return Ok(Some(at));
        }
        if common == 0 {
            return Ok(None);
        }
    }
}

/// Size of a file or block device in bytes.
///
/// # Errors
/// It can't be opened.
pub fn size(path: &Path) -> io::Result<u64> {
    File::open(path)?.seek(SeekFrom::End(0))
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..])? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}
