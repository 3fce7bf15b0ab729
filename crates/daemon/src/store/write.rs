//! Writing blocks and zeroes.

use super::durability::Way;
use super::work::{Durable, Machine, Piece, Store, Work, write_error};
use crate::crc;
use lockstep_engine::interface::IoKey;
use lockstep_mirror::operation::{Extent, Payload};
use lockstep_mirror::volume_io::{IoError, Value};
use lockstep_uring::{Allocate, Errno, Op, file};
use std::time::Instant;

/// Ranges up to this length are zeroed by writing zeroes: one ordinary write, and the file's
/// extents stay as they are. The arena's slot of zeroes has this size.
pub(crate) const ZERO_BYTES: u32 = 256 << 10;

impl Store {
    pub(super) fn write(
        &mut self,
        machine: &mut Machine<'_>,
        key: IoKey,
        disk: usize,
        offset: u64,
        payload: Payload,
        durable: bool,
    ) {
        let Payload {
            buffer,
            at,
            len,
            crc,
        } = payload;
        let bytes = machine.arena.bytes(buffer.slot, at, len);
        if crc::crc32c(bytes) != crc {
            self.log(
                disk,
                "write a buffer that changed its contents to",
                offset,
                Errno::ILSEQ,
            );
            return self.finish(key, Err(IoError::Corrupt));
        }
        let mut rest = Piece {
            slot: buffer.slot,
            at,
            len,
            offset,
        };
        if self.disks[disk].manner.memory {
            rest = self.write_at_once(machine, disk, rest);
            if rest.len == 0 {
                return self.finish(key, Ok(Value::Done));
            }
        }
        let durable = match durable {
            true => Durable::Yes(self.disks[disk].chooser.begin(), Instant::now()),
            false => Durable::No,
        };
        let request = self.insert(key, disk, Work::Write(rest, durable));
        self.submit_write(machine, request, rest, durable);
    }

    /// Writes to a file in memory; what is left met an error, which the ring will meet as well.
    fn write_at_once(&self, machine: &Machine<'_>, disk: usize, mut rest: Piece) -> Piece {
        while rest.len > 0 {
            let bytes = machine.arena.bytes(rest.slot, rest.at, rest.len);
            match file::write(&self.disks[disk].image.file, bytes, rest.offset) {
                Ok(count) if count > 0 => {
                    rest = rest.after(u32::try_from(count).expect("no more than given"))
                }
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        rest
    }

    pub(super) fn zero(
        &mut self,
        machine: &mut Machine<'_>,
        key: IoKey,
        disk: usize,
        extent: Extent,
        durable: bool,
    ) {
        if extent.len == 0 {
            return self.finish(key, Ok(Value::Done));
        }
        let short = extent.len <= u64::from(ZERO_BYTES);
        let attached = &self.disks[disk];
        if short && attached.manner.memory {
            let len = u32::try_from(extent.len).expect("short");
            let piece = Piece {
                slot: self.zeroes,
                at: 0,
                len,
                offset: extent.offset,
            };
            if self.write_at_once(machine, disk, piece).len == 0 {
                return self.finish(key, Ok(Value::Done));
            }
        }
        let by_writing = short || !attached.zero_range;
        let durable = if durable {
            Durable::Yes(Way::Shared, Instant::now())
        } else {
            Durable::No
        };
        let work = Work::Zero {
            offset: extent.offset,
            end: extent.end(),
            durable,
            by_writing,
        };
        let request = self.insert(key, disk, work);
        self.submit_zero(machine, request, extent.offset, extent.end(), by_writing);
    }

    /// A step of a write or of zeroing has ended.
    pub(super) fn write_step(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        work: Work,
        result: Result<u32, Errno>,
    ) {
        match (work, result) {
            // Interrupted, or short of something for a moment: the same again.
            (Work::Write(piece, durable), Err(Errno::INTR | Errno::AGAIN)) => {
                self.submit_write(machine, request, piece, durable)
            }
            (
                Work::Zero {
                    offset,
                    end,
                    by_writing,
                    ..
                },
                Err(Errno::INTR | Errno::AGAIN),
            ) => {
                self.submit_zero(machine, request, offset, end, by_writing);
            }
            (Work::Write(piece, durable), Ok(count)) if count == piece.len => {
                self.written(request, durable)
            }
            (Work::Write(piece, durable), Ok(count)) if count > 0 => {
                let rest = piece.after(count);
                self.requests[request].work = Work::Write(rest, durable);
                self.submit_write(machine, request, rest, durable);
            }
            (
                Work::Zero {
                    durable,
                    by_writing: false,
                    ..
                },
                Ok(_),
            ) => self.written(request, durable),
            (
                Work::Zero {
                    offset,
                    end,
                    durable,
                    by_writing: true,
                },
                Ok(count),
            ) if count > 0 => {
                let offset = offset + u64::from(count);
                if offset == end {
                    return self.written(request, durable);
                }
                self.requests[request].work = Work::Zero {
                    offset,
                    end,
                    durable,
                    by_writing: true,
                };
                self.submit_zero(machine, request, offset, end, true);
            }
            (
                Work::Zero {
                    offset,
                    end,
                    durable,
                    by_writing: false,
                },
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS),
            ) => {
                // It cannot, or not for a range that its own blocks do not divide.
                if result != Err(Errno::INVAL) {
                    let disk = self.requests[request].disk;
                    self.disks[disk].zero_range = false;
                }
                self.requests[request].work = Work::Zero {
                    offset,
                    end,
                    durable,
                    by_writing: true,
                };
                self.submit_zero(machine, request, offset, end, true);
            }
            (Work::Write(Piece { offset, .. }, _) | Work::Zero { offset, .. }, result) => {
                // A write of nothing without an error would go on for ever.
                let error = result.err().unwrap_or(Errno::IO);
                self.log(self.requests[request].disk, "write", offset, error);
                self.end(request, Err(write_error(error)));
            }
            _ => unreachable!("called for writes"),
        }
    }

    /// The kernel has it all.
    fn written(&mut self, request: usize, durable: Durable) {
        let memory = self.disks[self.requests[request].disk].manner.memory;
        if matches!(durable, Durable::Yes(Way::Shared, _)) && !memory {
            self.wait_for_flush(request);
        } else {
            self.end(request, Ok(Value::Done));
        }
    }

    fn submit_write(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        piece: Piece,
        durable: Durable,
    ) {
        let from = machine.arena.lend(piece.slot, piece.at, piece.len);
        let file = self.image(request);
        self.submit(
            machine,
            request,
            Op::Write {
                file,
                from,
                offset: piece.offset,
                durable: matches!(durable, Durable::Yes(Way::Each, _)),
            },
        );
    }

    fn submit_zero(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        offset: u64,
        end: u64,
        by_writing: bool,
    ) {
        let file = self.image(request);
        let len = end - offset;
        if by_writing {
            let len = u32::try_from(len.min(u64::from(ZERO_BYTES))).expect("at most a slot");
            let from = machine.arena.lend(self.zeroes, 0, len);
            self.submit(
                machine,
                request,
                Op::Write {
                    file,
                    from,
                    offset,
                    durable: false,
                },
            );
        } else {
            self.submit(
                machine,
                request,
                Op::Allocate {
                    file,
                    offset,
                    len,
                    mode: Allocate::Zero,
                },
            );
        }
    }
}
