//! An initiator of a few lines, by bytes alone: what goes over the wire here was not written by
//! the code under test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Most bytes in one data segment, either way.
const SEGMENT: usize = 65_536;

/// One session with one connection, without digests unless asked for.
pub(super) struct Initiator {
    pub(super) stream: TcpStream,
    command_number: u32,
    status_number: u32,
    tag: u32,
    digests: bool,
}

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u8,
    pub(super) data: Vec<u8>,
}

fn word(header: &[u8; 48], at: usize) -> u32 {
    u32::from_be_bytes(header[at..at + 4].try_into().unwrap())
}

impl Initiator {
    /// Logs in, or says with which status it was refused.
    pub(super) fn login(address: SocketAddr, target: &str, digests: bool) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let mut session = Self {
            stream,
            command_number: 1,
            status_number: 0,
            tag: 1,
            digests: false,
        };
        let digest = if digests { "CRC32C" } else { "None" };
        let text = format!(
            "InitiatorName=iqn.2026-11.test:one\0SessionType=Normal\0TargetName={target}\0\
             HeaderDigest={digest}\0DataDigest={digest}\0MaxRecvDataSegmentLength={SEGMENT}\0\
             ImmediateData=Yes\0InitialR2T=No\0FirstBurstLength=65536\0MaxBurstLength=262144\0"
        );
        let mut header = [0; 48];
        (header[0], header[1]) = (0x43, 0x87);
        // Another ISID each time: the same one would take over the session before.
        static NEXT: AtomicU8 = AtomicU8::new(0);
        header[8..14].copy_from_slice(&[0x80, 0, 0, 1, 0, NEXT.fetch_add(1, Ordering::Relaxed)]);
        header[24..28].copy_from_slice(&1u32.to_be_bytes());
        session.send(&mut header, text.as_bytes());
        let (answer, _) = session.receive();
        assert_eq!(answer[0], 0x23, "a login response");
        let status = u16::from_be_bytes([answer[36], answer[37]]);
        if status != 0 {
            return Err(status);
        }
        assert_eq!(answer[1] & 0x83, 0x83, "straight to full feature phase");
        session.digests = digests;
        while session.command(&[0; 16], &[], 0).status != 0 {}
        Ok(session)
    }

    pub(super) fn read(&mut self, block: u32, blocks: u16) -> Answer {
        let mut cdb = [0; 16];
        cdb[0] = 0x28;
        cdb[2..6].copy_from_slice(&block.to_be_bytes());
        cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
        self.command(&cdb, &[], u32::from(blocks) * 4096)
    }

    pub(super) fn write(&mut self, block: u32, data: &[u8]) -> Answer {
        let mut cdb = [0; 16];
        cdb[0] = 0x2a;
        cdb[2..6].copy_from_slice(&block.to_be_bytes());
        cdb[7..9].copy_from_slice(&u16::try_from(data.len() / 4096).unwrap().to_be_bytes());
        self.command(&cdb, data, 0)
    }

    /// One command from beginning to end.
    pub(super) fn command(&mut self, cdb: &[u8; 16], out: &[u8], expected: u32) -> Answer {
        let tag = self.start(cdb, out, expected);
        let mut data = vec![0; expected as usize];
        loop {
            let (header, segment) = self.receive();
            assert_eq!(word(&header, 16), tag);
            let offset = word(&header, 40) as usize;
            match header[0] & 0x3f {
                0x21 => {
                    return Answer {
                        status: header[3],
                        data,
                    };
                }
                0x25 => {
                    data[offset..offset + segment.len()].copy_from_slice(&segment);
                    if header[1] & 1 != 0 {
                        return Answer {
                            status: header[3],
                            data,
                        };
                    }
                }
                0x31 => self.data_out(
                    tag,
                    &header,
                    &out[offset..offset + word(&header, 44) as usize],
                ),
                other => panic!("unexpected opcode {other:#x}"),
            }
        }
    }

    /// Sends a command with as much immediate data as allowed.
    pub(super) fn start(&mut self, cdb: &[u8; 16], out: &[u8], expected: u32) -> u32 {
        let mut header = [0; 48];
        header[0] = 0x01;
        header[1] =
            0x81 | if out.is_empty() { 0 } else { 0x20 } | if expected > 0 { 0x40 } else { 0 };
        let len = expected.max(u32::try_from(out.len()).unwrap());
        header[20..24].copy_from_slice(&len.to_be_bytes());
        header[24..28].copy_from_slice(&self.command_number.to_be_bytes());
        header[32..48].copy_from_slice(cdb);
        self.command_number += 1;
        self.send(&mut header, &out[..out.len().min(SEGMENT)])
    }

    fn data_out(&mut self, tag: u32, request: &[u8; 48], burst: &[u8]) {
        let base = word(request, 40) as usize;
        for (number, piece) in burst.chunks(SEGMENT).enumerate() {
            let mut header = [0; 48];
            header[0] = 0x05;
            header[1] = if (number + 1) * SEGMENT >= burst.len() {
                0x80
            } else {
                0
            };
            header[16..20].copy_from_slice(&tag.to_be_bytes());
            header[20..24].copy_from_slice(&request[20..24]);
            header[36..40].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
            let offset = base + number * SEGMENT;
            header[40..44].copy_from_slice(&u32::try_from(offset).unwrap().to_be_bytes());
            self.put(&mut header, piece);
        }
    }

    fn send(&mut self, header: &mut [u8; 48], data: &[u8]) -> u32 {
        let tag = self.tag;
        self.tag += 1;
        header[16..20].copy_from_slice(&tag.to_be_bytes());
        self.put(header, data);
        tag
    }

    fn put(&mut self, header: &mut [u8; 48], data: &[u8]) {
        header[5..8].copy_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes()[1..]);
        header[28..32].copy_from_slice(&self.status_number.to_be_bytes());
        let mut bytes = header.to_vec();
        if self.digests {
            bytes.extend(crc32c::crc32c(header).to_le_bytes());
        }
        if !data.is_empty() {
            let start = bytes.len();
            bytes.extend_from_slice(data);
            bytes.resize(start + data.len().next_multiple_of(4), 0);
            if self.digests {
                bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
            }
        }
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next PDU, checked against its digests.
    pub(super) fn receive(&mut self) -> ([u8; 48], Vec<u8>) {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header).unwrap();
        if self.digests {
            assert_eq!(self.digest(), crc32c::crc32c(&header));
        }
        let len = (word(&header, 4) & 0xff_ffff) as usize;
        let mut data = vec![0; len.next_multiple_of(4)];
        self.stream.read_exact(&mut data).unwrap();
        if self.digests && len > 0 {
            assert_eq!(self.digest(), crc32c::crc32c(&data));
        }
        data.truncate(len);
        // Data without status, R2T and NOP carry no new status number.
        if matches!(header[0] & 0x3f, 0x21..=0x23)
            || (header[0] & 0x3f == 0x25 && header[1] & 1 != 0)
        {
            self.status_number = word(&header, 24).wrapping_add(1);
        }
        (header, data)
    }

    fn digest(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }
}
