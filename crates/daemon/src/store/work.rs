//! `Io` in progress on the disks of one shard.

use super::disk::{Disk, Manner};
use super::durability::{Chooser, Way};
use super::flush::Flushes;
use lockstep_engine::interface::IoKey;
use lockstep_mirror::control::VolumeId;
use lockstep_mirror::operation::Extent;
use lockstep_mirror::volume_io::{Io, IoError, Value};
use lockstep_uring::{Arena, Completion, Errno, Gift, Handle, Op, Ring, Token};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

/// Operations that the kernel has at once, of all disks of a shard: more only lengthen its queues.
const IN_KERNEL_MAX: usize = 4096;
/// Disk errors that are logged of one disk, before only every thousandth is.
const LOGGED_ERRORS: u64 = 20;

/// The end of an `Io`.
#[derive(Debug)]
pub struct IoDone {
    /// As it was started.
    pub key: IoKey,
    /// What it brought.
    pub result: Result<Value, IoError>,
}

/// Ring and memory of the thread; every step needs both.
pub struct Machine<'a> {
    /// Where operations are submitted.
    pub ring: &'a mut Ring,
    /// Where buffers lie: a buffer's slot is the arena's slot of the same number.
    pub arena: &'a mut Arena,
}

/// The disks of a shard.
pub struct Store {
    pub(super) disks: Slab<Attached>,
    by_volume: BTreeMap<VolumeId, usize>,
    pub(super) requests: Slab<Request>,
    backlog: VecDeque<(IoKey, VolumeId, Io)>,
    in_kernel: usize,
    done: VecDeque<IoDone>,
    /// Disks on which somebody waits for a flush that has not begun, or that are to be detached.
    unsettled: Vec<usize>,
    detached: Vec<VolumeId>,
    /// A slot of zeroes, from which zeroes are written.
    pub(super) zeroes: u32,
}

pub(super) struct Attached {
    volume: VolumeId,
    path: PathBuf,
    pub(super) manner: Manner,
    pub(super) image: Flushes,
    pub(super) metadata: Flushes,
    /// Whether the file system or device can zero a range without being sent the zeroes.
    pub(super) zero_range: bool,
    /// Whether it can tell that a read would have to wait.
    pub(super) no_wait: bool,
    pub(super) chooser: Chooser,
    requests: usize,
    detaching: bool,
    errors: u64,
}

pub(super) struct Request {
    key: IoKey,
    pub(super) disk: usize,
    pub(super) work: Work,
}

/// What is left to do of a request.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Read(Piece),
    Write(Piece, Durable),
    /// Zeroes for a range; `by_writing`: the device cannot do it by itself.
    Zero {
        offset: u64,
        end: u64,
        durable: Durable,
        by_writing: bool,
    },
    Flush,
    ReadMeta {
        offset: u64,
    },
    WriteMeta {
        offset: u64,
    },
}

/// Whether stable storage must have it, and since when it is being brought there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    No,
    Yes(Way, Instant),
}

/// A piece of a slot, and where it belongs in the image.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub slot: u32,
    pub at: u32,
    pub len: u32,
    pub offset: u64,
}

impl Piece {
    /// What is left when so many bytes are done.
    pub(super) const fn after(self, done: u32) -> Self {
        Self {
            slot: self.slot,
            at: self.at + done,
            len: self.len - done,
            offset: self.offset + done as u64,
        }
    }
}

impl Store {
    /// Tokens of the store's operations have this bit.
    pub const TOKENS: u64 = 1 << 63;
    /// Among them, flushes have this one.
    const FLUSH: u64 = 1 << 62;

    /// No disks. `zeroes`: a slot of the arena that nobody ever writes.
    #[must_use]
    pub fn new(zeroes: u32) -> Self {
        Self {
            disks: Slab::new(),
            by_volume: BTreeMap::new(),
            requests: Slab::new(),
            backlog: VecDeque::new(),
            in_kernel: 0,
            done: VecDeque::new(),
            unsettled: Vec::new(),
            detached: Vec::new(),
            zeroes,
        }
    }

    /// Takes a volume's disk over.
    ///
    /// # Panics
    /// If the volume has one already.
    pub fn attach(&mut self, volume: VolumeId, disk: Disk) {
        let (image, metadata, path, manner) = disk.into_handles();
        let index = self.disks.insert(Attached {
            volume,
            path,
            manner,
            image: Flushes::new(image),
            metadata: Flushes::new(metadata),
            zero_range: !manner.memory,
            no_wait: !manner.direct && !manner.memory,
            chooser: Chooser::new(manner.direct),
            requests: 0,
            detaching: false,
            errors: 0,
        });
        assert!(
            self.by_volume.insert(volume, index).is_none(),
            "a volume has one disk"
        );
    }

    /// Lets a volume's disk go as soon as nothing is in progress on it; `take_detached` says when.
    pub fn detach(&mut self, volume: VolumeId) {
        match self.by_volume.remove(&volume) {
            Some(index) => {
                self.disks[index].detaching = true;
                self.unsettled.push(index);
            }
            None => self.detached.push(volume),
        }
    }

    /// Volumes whose disks (and locks) are let go.
    pub fn take_detached(&mut self) -> Option<VolumeId> {
        self.detached.pop()
    }

    /// The next end of an `Io`.
    pub fn take_done(&mut self) -> Option<IoDone> {
        self.done.pop_front()
    }

    /// Starts an `Io` on disk or metadata area (not one on buffers). It may be done at once.
    pub fn start(&mut self, machine: &mut Machine<'_>, key: IoKey, volume: VolumeId, io: Io) {
        if self.in_kernel >= IN_KERNEL_MAX {
            self.backlog.push_back((key, volume, io));
            return;
        }
        let Some(&disk) = self.by_volume.get(&volume) else {
            let result = Err(if matches!(io, Io::Read { .. } | Io::ReadMeta { .. }) {
                IoError::Unreadable
            } else {
                IoError::WriteFailed
            });
            self.done.push_back(IoDone { key, result });
            return;
        };
        match io {
            Io::Read { extent, buffer, at } => {
                let piece = Piece {
                    slot: buffer.slot,
                    at,
                    len: short(extent),
                    offset: extent.offset,
                };
                self.read(machine, key, disk, piece);
            }
            Io::Write {
                offset,
                payload,
                durable,
            } => self.write(machine, key, disk, offset, payload, durable),
            Io::Zero { extent, durable } | Io::Discard { extent, durable } => {
                self.zero(machine, key, disk, extent, durable);
            }
            Io::Flush if self.disks[disk].manner.memory => self.finish(key, Ok(Value::Done)),
            Io::Flush => {
                let request = self.insert(key, disk, Work::Flush);
                self.wait_for_flush(request);
            }
            Io::ReadMeta { offset, len } => self.read_metadata(machine, key, disk, offset, len),
            Io::WriteMeta { offset, bytes } => {
                self.write_metadata(machine, key, disk, offset, bytes)
            }
            Io::Crc { .. }
            | Io::Hash { .. }
            | Io::Compare { .. }
            | Io::Fill { .. }
            | Io::Put { .. } => {
                unreachable!("work on buffers needs no disk")
            }
        }
    }

    /// To be called at the end of each turn: starts the flushes that are waited for.
    pub fn settle(&mut self, machine: &mut Machine<'_>) {
        for position in (0..self.unsettled.len()).rev() {
            let index = self.unsettled[position];
            let disk = &mut self.disks[index];
            for (which, flushes) in [(0, &mut disk.image), (1, &mut disk.metadata)] {
                if flushes.begin() {
                    let token = Token(Self::TOKENS | Self::FLUSH | (index as u64) << 1 | which);
                    machine.ring.submit(
                        token,
                        Op::Sync {
                            file: Rc::clone(&flushes.file),
                        },
                    );
                    self.in_kernel += 1;
                }
            }
            let waits = disk.image.has_waiting() || disk.metadata.has_waiting();
            if disk.detaching
                && disk.requests == 0
                && disk.image.is_idle()
                && disk.metadata.is_idle()
            {
                self.detached.push(self.disks.remove(index).volume);
                self.unsettled.swap_remove(position);
            } else if !waits && !disk.detaching {
                self.unsettled.swap_remove(position);
            }
        }
    }

    /// Takes the completion of an operation whose token has [`Store::TOKENS`].
    pub fn completed(&mut self, machine: &mut Machine<'_>, completion: Completion) {
        self.in_kernel -= 1;
        let Completion {
            token,
            result,
            gift,
            ..
        } = completion;
        if token.0 & Self::FLUSH == 0 {
            let request = usize::try_from(token.0 & !Self::TOKENS).expect("made from a usize");
            self.advance(machine, request, result, gift);
        } else {
            let index = usize::try_from((token.0 & !Self::TOKENS & !Self::FLUSH) >> 1)
                .expect("made from a usize");
            self.flushed(index, token.0 & 1 == 1, result);
        }
        while self.in_kernel < IN_KERNEL_MAX
            && let Some((key, volume, io)) = self.backlog.pop_front()
        {
            self.start(machine, key, volume, io);
        }
    }

    fn flushed(&mut self, disk: usize, metadata: bool, result: Result<u32, Errno>) {
        let attached = &mut self.disks[disk];
        let which = if metadata {
            &mut attached.metadata
        } else {
            &mut attached.image
        };
        let covered = which.take_covered();
        if let Err(error) = result {
            self.log(disk, "flush", 0, error);
        }
        for &request in &covered {
            self.end(request, result.map(|_| Value::Done).map_err(write_error));
        }
        let attached = &mut self.disks[disk];
        let which = if metadata {
            &mut attached.metadata
        } else {
            &mut attached.image
        };
        which.give_back(covered);
        if which.has_waiting() {
            self.unsettled(disk);
        }
    }

    /// One step of a request has ended.
    fn advance(
        &mut self,
        machine: &mut Machine<'_>,
        request: usize,
        result: Result<u32, Errno>,
        gift: Gift,
    ) {
        let Request { work, .. } = self.requests[request];
        match (work, gift) {
            (Work::Read(piece), _) => self.read_step(machine, request, piece, result),
            (Work::Write(..) | Work::Zero { .. }, _) => {
                self.write_step(machine, request, work, result)
            }
            (Work::ReadMeta { .. } | Work::WriteMeta { .. }, Gift::Bytes(bytes)) => {
                self.metadata_step(machine, request, work, result, bytes);
            }
            (Work::Flush | Work::ReadMeta { .. } | Work::WriteMeta { .. }, _) => {
                unreachable!("metadata comes back as bytes, and flushes have tokens of their own")
            }
        }
    }

    pub(super) fn image(&self, request: usize) -> Handle {
        Rc::clone(&self.disks[self.requests[request].disk].image.file)
    }

    pub(super) fn submit(&mut self, machine: &mut Machine<'_>, request: usize, op: Op) {
        self.in_kernel += 1;
        machine
            .ring
            .submit(Token(Self::TOKENS | request as u64), op);
    }

    pub(super) fn insert(&mut self, key: IoKey, disk: usize, work: Work) -> usize {
        self.disks[disk].requests += 1;
        self.requests.insert(Request { key, disk, work })
    }

    /// The request's writes are done; the next flush of its file completes it.
    pub(super) fn wait_for_flush(&mut self, request: usize) {
        let Request { disk, work, .. } = self.requests[request];
        let attached = &mut self.disks[disk];
        let flushes = if matches!(work, Work::WriteMeta { .. }) {
            &mut attached.metadata
        } else {
            &mut attached.image
        };
        if flushes.wait(request) {
            self.unsettled(disk);
        }
    }

    fn unsettled(&mut self, disk: usize) {
        if !self.unsettled.contains(&disk) {
            self.unsettled.push(disk);
        }
    }

    /// Ends an `Io` that never became a request.
    pub(super) fn finish(&mut self, key: IoKey, result: Result<Value, IoError>) {
        self.done.push_back(IoDone { key, result });
    }

    pub(super) fn end(&mut self, request: usize, result: Result<Value, IoError>) {
        let Request { key, disk, work } = self.requests.remove(request);
        let attached = &mut self.disks[disk];
        attached.requests -= 1;
        if let Work::Write(_, Durable::Yes(way, begun)) = work {
            attached.chooser.ended(way, begun.elapsed());
        }
        self.finish(key, result);
    }

    pub(super) fn log(&mut self, disk: usize, doing: &str, offset: u64, error: Errno) {
        let attached = &mut self.disks[disk];
        attached.errors += 1;
        if attached.errors <= LOGGED_ERRORS || attached.errors.is_multiple_of(1000) {
            let path = attached.path.display();
            tracing::error!(%path, offset, %error, errors = attached.errors, "cannot {doing} the image");
        }
    }
}

fn short(extent: Extent) -> u32 {
    u32::try_from(extent.len).expect("a read fits a buffer")
}

/// What a failed write, flush or allocation means.
pub(super) fn write_error(error: Errno) -> IoError {
    match error {
        Errno::NOSPC | Errno::DQUOT => IoError::NoSpace,
        _ => IoError::WriteFailed,
    }
}
