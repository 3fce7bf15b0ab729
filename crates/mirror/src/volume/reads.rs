//! Reads: from the local copy, never over an uncommitted write, never outside a lease, and done
//! again if a write was admitted while the disk was read.

use super::running::{Local, Origin};
use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{DROP_AGE, Use, Volume};
use crate::control::{FromVolume, Time};
use crate::operation::{BufferId, Extent};
use crate::volume_action::{Refusal, Ticket};
use crate::volume_io::{Io, IoError, Value};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A block that was rewritten so often for one read, and still cannot be read, will not be.
const MENDS_A_READ: u8 = 2;

#[derive(Default)]
pub(super) struct Reads {
    all: BTreeMap<u64, Read>,
    next: u64,
    /// How many are not at the disk.
    idle: usize,
    /// Something changed for which a read may have waited.
    pub(super) stirred: bool,
}

struct Read {
    ticket: Ticket,
    extent: Extent,
    buffer: BufferId,
    at: u32,
    state: State,
    /// How often its blocks were rewritten for it.
    mends: u8,
    since: Time,
    /// A write of its range was admitted since it went to the disk, or the configuration changed.
    spoiled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    AtDisk,
    /// Its blocks are being fetched from the partner and rewritten here, under that name.
    Mending(u64),
    /// Read well, but the lease had run out: answered once there is one again.
    Unanswered,
}

impl Reads {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn wait(&self) -> bool {
        self.idle > 0
    }
}

impl Volume {
    pub(super) fn take_read(
        &mut self,
        ticket: Ticket,
        extent: Extent,
        buffer: BufferId,
        at: u32,
        turn: &mut Turn<'_>,
    ) {
        assert!(
            extent.len > 0 && extent.end() <= self.spec.size,
            "the SCSI layer checks every range"
        );
        if self.proxy.is_on() {
            return self.pass_read(ticket, extent, buffer, at, turn);
        }
        let refusal = match &self.stage {
            Stage::Failed => Some(self.failure_refusal()),
            Stage::Target(_) | Stage::Closing(_) | Stage::Closed | Stage::New => {
                Some(Refusal::NotServed)
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            return turn.complete(ticket, Err(refusal));
        }
        let id = self.reads.next;
        self.reads.next += 1;
        self.reads.idle += 1;
        self.reads.all.insert(
            id,
            Read {
                ticket,
                extent,
                buffer,
                at,
                state: State::Waiting,
                mends: 0,
                since: turn.now,
                spoiled: false,
            },
        );
        self.go_on_reading(id, turn);
    }

    /// Every read that waits is looked at again.
    pub(super) fn read_again(&mut self, turn: &mut Turn<'_>) {
        if !core::mem::take(&mut self.reads.stirred) || self.reads.idle == 0 {
            return;
        }
        let idle: Vec<u64> = self
            .reads
            .all
            .iter()
            .filter(|(_, read)| matches!(read.state, State::Waiting | State::Unanswered))
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.go_on_reading(id, turn);
        }
    }

    fn go_on_reading(&mut self, id: u64, turn: &mut Turn<'_>) {
        if !self.serves(turn.now) || !self.may_read(turn) {
            return;
        }
        let read = &self.reads.all[&id];
        if read.state == State::Unanswered && !read.spoiled {
            let read = self.remove_read(id);
            return turn.complete(read.ticket, Ok(()));
        }
        let extent = read.extent;
        if self.is_uncommitted(extent, turn) {
            return;
        }
        let read = self.reads.all.get_mut(&id).expect("looked at just now");
        read.spoiled = false;
        read.state = State::AtDisk;
        let io = Io::Read {
            extent,
            buffer: read.buffer,
            at: read.at,
        };
        self.reads.idle -= 1;
        self.start_io(Use::Read(id), io, turn);
    }

    fn remove_read(&mut self, id: u64) -> Read {
        let read = self.reads.all.remove(&id).expect("looked at just now");
        self.reads.idle -= usize::from(read.state != State::AtDisk);
        read
    }

    /// Whether the lease holds, and a replica knows that it is not kept behind.
    fn may_read(&mut self, turn: &mut Turn<'_>) -> bool {
        let Stage::Paired(paired) = &self.stage else {
            return true;
        };
        if turn.now >= paired.lease {
            return false;
        }
        paired.owner || self.is_fresh(turn)
    }

    /// Whether an operation that overlaps is not known to be committed. A replica asks for it.
    fn is_uncommitted(&mut self, extent: Extent, turn: &mut Turn<'_>) -> bool {
        let role = self.role();
        let overlapping = self.running.iter().filter(|(_, running)| {
            running.overlaps(extent) && !matches!(running.origin, Origin::Copy(_))
        });
        match role {
            Role::Alone => overlapping
                .into_iter()
                .any(|(_, running)| running.local != Local::Done),
            Role::Replica => {
                let numbers: Vec<u64> = overlapping.map(|(seq, _)| *seq).collect();
                for seq in &numbers {
                    self.ask_committed(*seq, turn);
                }
                !numbers.is_empty()
            }
            _ => overlapping.into_iter().next().is_some(),
        }
    }

    /// A write of this range was admitted (all of them, without one).
    pub(super) fn spoil_reads(&mut self, extent: Option<Extent>) {
        let Some(extent) = extent else { return };
        for read in self.reads.all.values_mut() {
            if read.extent.overlaps(extent) {
                read.spoiled = true;
            }
        }
    }

    /// The configuration changed: what is at the disk is read again.
    pub(super) fn spoil_all_reads(&mut self) {
        for read in self.reads.all.values_mut() {
            read.spoiled = true;
        }
        self.reads.stirred = true;
    }

    pub(super) fn read_done(
        &mut self,
        id: u64,
        result: &Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        // It may have been cancelled.
        let Some(read) = self.reads.all.get_mut(&id) else {
            return;
        };
        self.reads.idle += 1;
        read.state = if result.is_ok() && !read.spoiled {
            State::Unanswered
        } else {
            State::Waiting
        };
        self.counts.reread += u64::from(read.spoiled);
        if let (Err(_), false) = (result, read.spoiled) {
            if matches!(self.stage, Stage::Paired(_)) {
                return self.mend_read(id, turn);
            }
            let read = self.remove_read(id);
            turn.tell(FromVolume::Unreadable {
                extent: read.extent,
            });
            self.counts.unreadable_lost += 1;
            return turn.complete(read.ticket, Err(Refusal::Unreadable));
        }
        self.go_on_reading(id, turn);
    }

    /// The partner holds what cannot be read here: it is rewritten from there, and read again.
    fn mend_read(&mut self, id: u64, turn: &mut Turn<'_>) {
        let read = self.reads.all.get_mut(&id).expect("looked at just now");
        let extent = read.extent;
        if read.mends >= MENDS_A_READ {
            // It says that it has written, and then cannot read it: this disk is not to be trusted.
            turn.tell(FromVolume::Unreadable { extent });
            return self.fail(turn);
        }
        read.mends += 1;
        self.counts.unreadable += 1;
        turn.tell(FromVolume::Unreadable { extent });
        let mend = self.have_mended(extent, turn);
        if let Some(read) = self.reads.all.get_mut(&id) {
            read.state = State::Mending(mend);
        }
    }

    /// What reads waited for was rewritten, or cannot be read from either node.
    pub(super) fn reads_mended(&mut self, mend: u64, good: bool, turn: &mut Turn<'_>) {
        let waiting: Vec<u64> = self
            .reads
            .all
            .iter()
            .filter(|(_, read)| read.state == State::Mending(mend))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if good {
                if let Some(read) = self.reads.all.get_mut(&id) {
                    read.state = State::Waiting;
                }
                self.reads.stirred = true;
            } else {
                let read = self.remove_read(id);
                self.counts.unreadable_lost += 1;
                turn.complete(read.ticket, Err(Refusal::Unreadable));
            }
        }
    }

    /// Another configuration: reads that waited for blocks of the partner are tried again.
    pub(super) fn unmend_reads(&mut self) {
        for read in self.reads.all.values_mut() {
            if matches!(read.state, State::Mending(_)) {
                read.state = State::Waiting;
                self.reads.stirred = true;
            }
        }
    }

    /// A read that waits too long for blocks of the partner keeps a buffer, which others may need
    /// for the very same: its initiator tries again.
    pub(super) fn refuse_unmended_reads(&mut self, turn: &mut Turn<'_>) {
        let before = turn.now.saturating_sub(DROP_AGE);
        let late: Vec<u64> = self
            .reads
            .all
            .iter()
            .filter(|(_, read)| matches!(read.state, State::Mending(_)) && read.since < before)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let read = self.remove_read(id);
            turn.complete(read.ticket, Err(Refusal::Busy));
        }
    }

    pub(super) fn cancel_read(&mut self, ticket: Ticket, turn: &mut Turn<'_>) -> bool {
        let Some(id) = self
            .reads
            .all
            .iter()
            .find(|(_, read)| read.ticket == ticket)
            .map(|(id, _)| *id)
        else {
            return false;
        };
        self.remove_read(id);
        turn.complete(ticket, Err(Refusal::Aborted));
        true
    }

    /// Takes all reads out, to be done elsewhere.
    pub(super) fn take_reads(&mut self) -> Vec<(Ticket, Extent, BufferId, u32)> {
        self.reads.idle = 0;
        core::mem::take(&mut self.reads.all)
            .into_values()
            .map(|read| (read.ticket, read.extent, read.buffer, read.at))
            .collect()
    }

    pub(super) fn refuse_reads(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        for (_, read) in core::mem::take(&mut self.reads.all) {
            turn.complete(read.ticket, Err(refusal));
        }
        self.reads.idle = 0;
    }
}
