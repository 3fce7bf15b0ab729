//! The metadata area: read and written with memory of its own, and durable when it says so.

use super::work::{Machine, Store, Work, write_error};
use lockstep_engine::interface::IoKey;
use lockstep_mirror::volume_io::{IoError, Value};
use lockstep_uring::{Errno, Op, file};
use std::rc::Rc;

impl Store {
    pub(super) fn read_metadata(
        &mut self,
        machine: &mut Machine<'_>,
        key: IoKey,
        disk: usize,
        offset: u64,
        len: u32,
    ) {
        let bytes = vec![0; len as usize].into_boxed_slice();
        let request = self.insert(key, disk, Work::ReadMeta { offset });
        self.submit_metadata_read(machine, request, offset, bytes);
    }

    fn submit_metadata_read(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        offset: u64,
        bytes: Box<[u8]>,
    ) {
        let file = Rc::clone(&self.disks[self.requests[request].disk].metadata.file);
        let op = Op::ReadBytes {
            file,
            bytes,
            offset,
        };
        self.submit(machine, request, op);
    }

    pub(super) fn write_metadata(
        &mut self,
        machine: &mut Machine<'_>,
        key: IoKey,
        disk: usize,
        offset: u64,
        bytes: Box<[u8]>,
    ) {
        let attached = &self.disks[disk];
        if attached.manner.metadata_memory
            && file::write(&attached.metadata.file, &bytes, offset)
                .is_ok_and(|count| count == bytes.len())
        {
            return self.finish(key, Ok(Value::Done));
        }
        let request = self.insert(key, disk, Work::WriteMeta { offset });
        self.submit_metadata_write(machine, request, offset, bytes);
    }

    fn submit_metadata_write(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        offset: u64,
        bytes: Box<[u8]>,
    ) {
        let file = Rc::clone(&self.disks[self.requests[request].disk].metadata.file);
        self.submit(
            machine,
            request,
            Op::WriteBytes {
                file,
                bytes,
                offset,
            },
        );
    }

    /// A step of reading or writing has ended; `bytes` is its memory.
    pub(super) fn metadata_step(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        work: Work,
        result: Result<u32, Errno>,
        bytes: Box<[u8]>,
    ) {
        let disk = self.requests[request].disk;
        match (work, result) {
            // Interrupted, or short of something for a moment: the same again.
            (Work::ReadMeta { offset }, Err(Errno::INTR | Errno::AGAIN)) => {
                self.submit_metadata_read(machine, request, offset, bytes);
            }
            (Work::WriteMeta { offset }, Err(Errno::INTR | Errno::AGAIN)) => {
                self.submit_metadata_write(machine, request, offset, bytes);
            }
            (Work::ReadMeta { .. }, Ok(count)) if count as usize == bytes.len() => {
                self.end(request, Ok(Value::Bytes(bytes)));
            }
            (Work::ReadMeta { offset }, result) => {
                let error = result.err().unwrap_or(Errno::IO);
                self.log(disk, "read metadata of", offset, error);
                self.end(request, Err(IoError::Unreadable));
            }
            (Work::WriteMeta { .. }, Ok(count)) if count as usize == bytes.len() => {
                self.wait_for_flush(request);
            }
            // A short write: the rest goes on its own.
            (Work::WriteMeta { offset }, Ok(count)) if count > 0 => {
                let offset = offset + u64::from(count);
                self.requests[request].work = Work::WriteMeta { offset };
                let rest = bytes[count as usize..].into();
                self.submit_metadata_write(machine, request, offset, rest);
            }
            (Work::WriteMeta { offset }, result) => {
                let error = result.err().unwrap_or(Errno::IO);
                self.log(disk, "write metadata of", offset, error);
                self.end(request, Err(write_error(error)));
            }
            _ => unreachable!("called for metadata"),
        }
    }
}
