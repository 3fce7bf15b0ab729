//! Reading blocks: at once where they are in memory, through the ring otherwise.

use super::work::{Machine, Piece, Store, Work};
use lockstep_engine::interface::IoKey;
use lockstep_mirror::volume_io::{IoError, Value};
use lockstep_uring::{Errno, Op, file};

/// The longest read that is tried from the page cache at once: about 40 µs of copying.
const CACHED_READ_MAX: u32 = 256 << 10;

impl Store {
    pub(super) fn read(
        &mut self,
        machine: &mut Machine<'_>,
        key: IoKey,
        disk: usize,
        piece: Piece,
    ) {
        let attached = &mut self.disks[disk];
        let mut rest = piece;
        let at_once = attached.manner.memory || (attached.no_wait && piece.len <= CACHED_READ_MAX);
        while at_once && rest.len > 0 {
            let bytes = machine.arena.bytes_mut(rest.slot, rest.at, rest.len);
            let got = if attached.manner.memory {
                file::read(&attached.image.file, bytes, rest.offset)
            } else {
                file::read_cached(&attached.image.file, bytes, rest.offset)
            };
            match got {
                Ok(count) if count > 0 => {
                    rest = rest.after(u32::try_from(count).expect("no more than asked for"))
                }
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP) => {
                    attached.no_wait = false;
                    break;
                }
                // Not cached, or an error that the ring will meet as well.
                _ => break,
            }
        }
        if rest.len == 0 {
            return self.finish(key, Ok(Value::Done));
        }
        let request = self.insert(key, disk, Work::Read(rest));
        self.submit_read(machine, request, rest);
    }

    pub(super) fn read_step(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        piece: Piece,
        result: Result<u32, Errno>,
    ) {
        match result {
            Ok(count) if count == piece.len => self.end(request, Ok(Value::Done)),
            // Nothing at all without an error: the file ends here, though it did not when opened.
            Ok(0) => {
                self.log(
                    self.requests[request].disk,
                    "read beyond the end of",
                    piece.offset,
                    Errno::IO,
                );
                self.end(request, Err(IoError::Unreadable));
            }
            Err(Errno::INTR | Errno::AGAIN) => self.submit_read(machine, request, piece),
            Ok(count) => {
                let rest = piece.after(count);
                self.requests[request].work = Work::Read(rest);
                self.submit_read(machine, request, rest);
            }
            Err(error) => {
                self.log(self.requests[request].disk, "read", piece.offset, error);
                self.end(request, Err(IoError::Unreadable));
            }
        }
    }

    fn submit_read(&mut self, machine: &mut Machine<'_>, request: usize, piece: Piece) {
        let into = machine.arena.lend_mut(piece.slot, piece.at, piece.len);
        let file = self.image(request);
        self.submit(
            machine,
            request,
            Op::Read {
                file,
                into,
                offset: piece.offset,
            },
        );
    }
}
