//! The node's disks and buffers at work: an operation takes its time, does a part of its work on
//! the way, and what is in progress at a kill is done, half done or not done.

use super::{Machine, ProcessEvent};
use crate::context::{Context, What};
use crate::disk::SECTOR;
use crate::memory::size;
use crate::prng::Prng;
use core::time::Duration;
use lockstep_engine::interface::{Event, IoKey};
use lockstep_mirror::volume_io::{Io, IoError, Value};
use std::collections::BTreeSet;

/// An operation in progress.
pub(super) struct Job {
    key: IoKey,
    volume: u128,
    io: Io,
    /// What a read has seen on the disk so far.
    seen: Vec<u8>,
    /// What was written when a flush began.
    point: u64,
    failed: Option<IoError>,
}

impl Machine {
    pub(super) fn start_job(&mut self, ctx: &mut Context, key: IoKey, volume: u128, io: Io) {
        let process = self.process.as_mut().expect("its shard just spoke");
        let files = self.volumes.entry(volume).or_default();
        let mut failed = None;
        if let Io::Write { payload, .. } = &io
            && process.memory.crc(payload.buffer, payload.at, payload.len) != payload.crc
        {
            failed = Some(IoError::Corrupt);
            ctx.violation(format!(
                "node {}: a write's blocks do not have their CRC: {io:?}",
                self.host + 1
            ));
        }
        let written = matches!(
            io,
            Io::Write { .. } | Io::Zero { .. } | Io::Discard { .. } | Io::Flush
        );
        if self.disk_fails && written {
            failed = Some(IoError::WriteFailed);
            ctx.count("disks: writes and flushes that failed");
        }
        ctx.trace(self.host, || format!("io {} {}", key.id, brief(&io)));
        let number = process.next_job;
        process.next_job += 1;
        let blocks = matches!(io, Io::Write { .. } | Io::Zero { .. } | Io::Discard { .. });
        let delay = match self.crawls && blocks {
            true => self.prng.millis(CRAWL.0, CRAWL.1),
            false => duration(&mut self.prng, self.speed, &io),
        };
        let delay = match &io {
            Io::Read { .. } => delay + self.hung_until.saturating_sub(ctx.now),
            _ => delay,
        };
        let half =
            delay.mul_f64(f64::from(u32::try_from(self.prng.below(1000)).expect("small")) / 1000.0);
        process.jobs.insert(
            number,
            Job {
                key,
                volume,
                io,
                seen: Vec::new(),
                point: files.image.point(),
                failed,
            },
        );
        let (host, run) = (self.host, process.run);
        ctx.after(
            half,
            What::Process {
                host,
                run,
                event: ProcessEvent::JobHalf(number),
            },
        );
        ctx.after(
            delay,
            What::Process {
                host,
                run,
                event: ProcessEvent::JobDone(number),
            },
        );
    }

    /// A read sees the disk now; a write has done some of its sectors.
    pub(super) fn job_half(&mut self, _: &Context, number: u64) {
        let process = self.process.as_mut().expect("the caller checked");
        let Some(job) = process.jobs.get_mut(&number) else {
            return;
        };
        let files = self
            .volumes
            .get_mut(&job.volume)
            .expect("the volume's files were opened");
        let memory = &mut process.memory;
        if job.failed.is_some() {
            return;
        }
        match &job.io {
            Io::Read { extent, .. } => {
                // The last copy of anything is spared: an error would be the truth then.
                let another = self.watch.following
                    || self
                        .watch
                        .serving
                        .is_some_and(|configuration| configuration.members.count() == 2);
                let sectors = extent.offset / SECTOR as u64..extent.end() / SECTOR as u64;
                if another && self.bad.range(sectors).next().is_some() {
                    job.failed = Some(IoError::Unreadable);
                    return;
                }
                job.seen = vec![0; bytes(extent.len)];
                files.image.read(extent.offset, &mut job.seen);
            }
            Io::ReadMeta { offset, len } => {
                job.seen = vec![0; size(*len)];
                files.meta.read(*offset, &mut job.seen);
            }
            Io::Write {
                offset, payload, ..
            } => {
                let data = memory.piece(payload.buffer, payload.at, payload.len);
                files
                    .image
                    .write_some(*offset, data, |_| self.prng.chance(400));
            }
            Io::WriteMeta { offset, bytes } => {
                files
                    .meta
                    .write_some(*offset, bytes, |_| self.prng.chance(400));
            }
            Io::Zero { extent, .. } | Io::Discard { extent, .. } => {
                files
                    .image
                    .write_some(extent.offset, &vec![0; bytes(extent.len)], |_| {
                        self.prng.chance(400)
                    });
            }
            Io::Flush
            | Io::Crc { .. }
            | Io::Hash { .. }
            | Io::Compare { .. }
            | Io::Fill { .. }
            | Io::Put { .. } => {}
        }
    }

    pub(super) fn job_done(&mut self, ctx: &mut Context, number: u64) {
        let process = self.process.as_mut().expect("the caller checked");
        let Some(job) = process.jobs.remove(&number) else {
            return;
        };
        let key = job.key;
        let result = match job.failed {
            Some(error) => Err(error),
            None => Ok(self.finish(job)),
        };
        ctx.trace(self.host, || match &result {
            Ok(Value::Bytes(bytes)) => format!("io {} brought {} bytes", key.id, bytes.len()),
            Ok(Value::Hashes(bytes)) => {
                format!("io {} brought {} bytes of hashes", key.id, bytes.len())
            }
            other => format!("io {} {other:?}", key.id),
        });
        self.shard_event(ctx, Event::Io { key, result });
    }

    fn finish(&mut self, job: Job) -> Value {
        let process = self.process.as_mut().expect("the caller checked");
        let files = self
            .volumes
            .get_mut(&job.volume)
            .expect("the volume's files were opened");
        let memory = &mut process.memory;
        match job.io {
            Io::Read { extent, buffer, at } => {
                let len = u32::try_from(extent.len).expect("reads fit a buffer");
                memory.piece(buffer, at, len).copy_from_slice(&job.seen);
            }
            Io::Write {
                offset,
                payload,
                durable,
            } => {
                let data = memory.piece(payload.buffer, payload.at, payload.len);
                files.image.write(offset, data);
                heal(&mut self.bad, offset, u64::from(payload.len));
                if durable {
                    files.image.persist(offset, size(payload.len));
                }
            }
            Io::Zero { extent, durable } | Io::Discard { extent, durable } => {
                heal(&mut self.bad, extent.offset, extent.len);
                files
                    .image
                    .write(extent.offset, &vec![0; bytes(extent.len)]);
                if durable {
                    files.image.persist(extent.offset, bytes(extent.len));
                }
            }
            Io::Flush => files.image.flushed(job.point),
            Io::ReadMeta { .. } => return Value::Bytes(job.seen.into_boxed_slice()),
            Io::WriteMeta { offset, bytes } => {
                files.meta.write(offset, &bytes);
                files.meta.persist(offset, bytes.len());
            }
            Io::Crc { buffer, at, len } => return Value::Crc(memory.crc(buffer, at, len)),
            Io::Hash {
                buffer,
                at,
                len,
                piece,
            } => return Value::Hashes(memory.hashes(buffer, at, len, piece)),
            Io::Compare {
                left,
                left_at,
                right,
                right_at,
                len,
            } => {
                return Value::Difference(memory.difference(
                    (left, left_at),
                    (right, right_at),
                    len,
                ));
            }
            Io::Fill {
                buffer,
                at,
                pattern,
                len,
            } => memory.fill(buffer, at, pattern, len),
            Io::Put { buffer, at, bytes } => {
                let len = u32::try_from(bytes.len()).expect("parameter lists are short");
                memory.piece(buffer, at, len).copy_from_slice(&bytes);
            }
        }
        Value::Done
    }

    /// The process is gone. What it had submitted is in the kernel's hands: some of it ends, some
    /// ends in the middle, some never begins.
    pub(super) fn abandon_jobs(
        &mut self,
        jobs: impl Iterator<Item = Job>,
        memory: &mut crate::memory::Memory,
    ) {
        for job in jobs.filter(|job| job.failed.is_none()) {
            let files = self
                .volumes
                .get_mut(&job.volume)
                .expect("the volume's files were opened");
            let share = *self.prng.pick(&[0, 500, 1000]);
            let prng = &mut self.prng;
            match &job.io {
                Io::Write {
                    offset, payload, ..
                } => {
                    let data = memory.piece(payload.buffer, payload.at, payload.len);
                    files
                        .image
                        .write_some(*offset, data, |_| prng.chance(share));
                }
                Io::WriteMeta { offset, bytes } => files
                    .meta
                    .write_some(*offset, bytes, |_| prng.chance(share)),
                Io::Zero { extent, .. } | Io::Discard { extent, .. } => {
                    files
                        .image
                        .write_some(extent.offset, &vec![0; bytes(extent.len)], |_| {
                            prng.chance(share)
                        });
                }
                _ => {}
            }
        }
    }
}

/// What is written can be read again.
fn heal(bad: &mut BTreeSet<u64>, offset: u64, len: u64) {
    let first = offset / SECTOR as u64;
    for sector in first..first + len.div_ceil(SECTOR as u64) {
        bad.remove(&sector);
    }
}

/// What a write takes on a disk that crawls, in milliseconds: more than the 5 s after which an
/// operation is late, less than after which the disk counts as failed.
const CRAWL: (u64, u64) = (5300, 7500);

/// A disk that hangs for longer fails the operation, which is another fault.
const LONGEST: Duration = Duration::from_secs(8);

fn duration(prng: &mut Prng, speed: super::DiskSpeed, io: &Io) -> Duration {
    let (low, high) = match io {
        Io::Crc { .. }
        | Io::Hash { .. }
        | Io::Compare { .. }
        | Io::Fill { .. }
        | Io::Put { .. } => (1, 20),
        Io::Read { .. } | Io::ReadMeta { .. } => (speed.low, speed.high),
        _ => (speed.low * 2, speed.high * 2),
    };
    let time = prng.micros(low, high);
    if high > 20 && prng.chance(speed.slow) {
        (time * 20).min(LONGEST)
    } else {
        time
    }
}

fn brief(io: &Io) -> String {
    match io {
        Io::WriteMeta { offset, bytes } => format!("WriteMeta at {offset}, {} bytes", bytes.len()),
        Io::Write {
            offset,
            payload,
            durable,
        } => {
            let (first, count) = (offset / SECTOR as u64, payload.len as usize / SECTOR);
            format!(
                "Write sectors {first}+{count} from {:?} durable {durable}",
                payload.buffer
            )
        }
        Io::Put { bytes, .. } => format!("Put {} bytes", bytes.len()),
        io => format!("{io:?}"),
    }
}

fn bytes(len: u64) -> usize {
    usize::try_from(len).expect("pretend volumes are small")
}
