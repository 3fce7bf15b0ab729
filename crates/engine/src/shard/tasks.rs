//! Commands on their way through the shard: from the header to the response. Each has at most
//! one buffer of its own, taken before its data is asked for or its read begins.

use super::execute::Run;
use super::starving::Starved;
use super::{Item, Shard, index};
use crate::interface::Action;
use alloc::vec::Vec;
use lockstep_iscsi::interface::{Command, DataIn, NexusId, Response, TaskId};
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::BufferId;
use lockstep_mirror::volume_action::{Refusal, Ticket};
use lockstep_scsi::interface::{Answer, Operation, Outcome, Port, Step};
use lockstep_scsi::{no_lun, well_known};

/// The ticket of operations that no command waits for.
pub(super) const NOBODY: Ticket = Ticket(0x7fff_ffff);
/// The well-known logical unit for REPORT LUNS (SAM-5 §4.7.5).
const REPORT_LUNS_WELL_KNOWN: [u8; 8] = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];

/// Where a task's data goes.
pub(super) enum Place {
    /// It is wanted as bytes.
    Bytes,
    /// Into its buffer.
    Buffer(BufferId),
}

/// How far a command is.
pub(super) enum Stage {
    /// No buffer was free.
    NoBuffer { operation: Operation, data_out: u32 },
    /// Its parameter list is coming in.
    Parameters,
    /// The blocks that it sends are coming in.
    Receiving(Operation),
    /// At work below.
    Running(Run),
    /// Answered; the last PDU is still in the queue.
    Answered,
}

/// For the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Read,
    Write,
    Flush,
    Other,
}

/// One command.
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) nexus: NexusId,
    pub(super) volume: usize,
    pub(super) port: Port,
    pub(super) cdb: [u8; 32],
    /// Bytes that the initiator will send at most.
    pub(super) sends: u32,
    /// Bytes that the CDB asks it to send.
    pub(super) data_out: u32,
    pub(super) started: Time,
    pub(super) sort: Sort,
    pub(super) stage: Stage,
    pub(super) buffer: Option<BufferId>,
    pub(super) bytes: Vec<u8>,
    pub(super) crc: u32,
    pub(super) outstanding: u32,
    /// A first piece of it was given to the mirror.
    pub(super) in_pieces: bool,
    pub(super) failure: Option<Refusal>,
    pub(super) aborted: bool,
}

impl Task {
    /// Bytes of data that came or will come.
    pub(super) fn received(&self) -> u32 {
        self.data_out.min(self.sends)
    }

    /// When a piece of a long range counts as received: the first one with the command. Those
    /// after it follow one that this session has just seen done.
    pub(super) fn piece_received(&mut self, now: Time) -> Time {
        match core::mem::replace(&mut self.in_pieces, true) {
            false => self.started,
            true => now,
        }
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket(u64::from(self.id.generation) << 32 | u64::from(self.id.slot))
    }
}

impl Shard {
    pub(super) fn command(&mut self, now: Time, command: &Command, actions: &mut Vec<Action>) {
        let Some(nexus) = self.nexuses.get_mut(&command.nexus) else {
            unreachable!("commands come from sessions that were announced");
        };
        nexus.tasks += 1;
        let port = Port {
            relative: self.relative_port(command.nexus),
            group: self.relative_port(command.nexus),
        };
        let target = command.target.0;
        let lun = lun_number(command.lun);
        let volume = lun.and_then(|lun| self.luns.get(&(target, lun)).copied());
        let task = Task {
            id: command.task,
            nexus: command.nexus,
            volume: volume.unwrap_or(usize::MAX),
            port,
            cdb: command.cdb,
            sends: if command.writes { command.expected } else { 0 },
            data_out: 0,
            started: now,
            sort: Sort::Other,
            stage: Stage::Parameters,
            buffer: None,
            bytes: Vec::new(),
            crc: 0,
            outstanding: 0,
            in_pieces: false,
            failure: None,
            aborted: false,
        };
        self.insert_task(task);
        if let Some(volume) = volume {
            self.volumes[volume].tasks += 1;
        }
        let Some(volume) = volume else {
            let luns = self.luns_of(target);
            let answer = if command.lun == REPORT_LUNS_WELL_KNOWN {
                well_known(&command.cdb, &luns)
            } else {
                no_lun(&command.cdb, &luns)
            };
            return self.answer(now, command.task, answer, DataIn::None);
        };
        let step = self.volumes[volume].disk.command(
            command.nexus.0,
            port,
            &command.cdb,
            command.expected,
        );
        self.step(now, command.task, step, actions);
    }

    /// Does what the SCSI layer says about a command.
    fn step(&mut self, now: Time, id: TaskId, step: Step, actions: &mut Vec<Action>) {
        match step {
            Step::Answer(answer) => self.answer_with_state(now, id, answer),
            Step::Parameters { len } => {
                let task = self.task_mut(id).expect("the caller has just put it there");
                task.data_out = len;
                task.stage = Stage::Parameters;
                self.session(|endpoint, out| endpoint.expect_data(now, id, len, out));
                self.touch_task(id);
            }
            Step::Operate {
                operation,
                data_out,
            } => {
                let block_size = self.block_size(id);
                let task = self.task_mut(id).expect("the caller has just put it there");
                task.data_out = data_out;
                task.sort = Run::sort(&operation);
                let need = Run::buffer_len(&operation, block_size);
                task.stage = Stage::NoBuffer {
                    operation,
                    data_out,
                };
                if need == 0 || self.starved.is_empty() && self.provide(id, need) {
                    self.provided(now, id, actions);
                } else {
                    self.starved.push_back(Starved::Task(id));
                }
            }
        }
    }

    /// The task has its buffer, if it needs one: fetch its data, or begin.
    pub(super) fn provided(&mut self, now: Time, id: TaskId, actions: &mut Vec<Action>) {
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        let Stage::NoBuffer {
            operation,
            data_out,
        } = core::mem::replace(&mut task.stage, Stage::Answered)
        else {
            unreachable!("the task was waiting for its buffer");
        };
        if data_out == 0 {
            self.begin(now, id, operation, actions);
        } else {
            task.stage = Stage::Receiving(operation);
            self.session(|endpoint, out| endpoint.expect_data(now, id, data_out, out));
            self.touch_task(id);
        }
    }

    pub(super) fn data_complete(
        &mut self,
        now: Time,
        id: TaskId,
        crc: u32,
        actions: &mut Vec<Action>,
    ) {
        let Some(task) = self.task_mut(id) else {
            return;
        };
        task.crc = crc;
        match core::mem::replace(&mut task.stage, Stage::Answered) {
            Stage::Parameters => {
                let bytes = core::mem::take(&mut task.bytes);
                let (nexus, port, cdb, volume) = (task.nexus.0, task.port, task.cdb, task.volume);
                let step = self.volumes[volume]
                    .disk
                    .parameters(nexus, port, &cdb, &bytes);
                self.task_mut(id).expect("still there").bytes = bytes;
                self.step(now, id, step, actions);
            }
            Stage::Receiving(operation) => self.begin(now, id, operation, actions),
            Stage::NoBuffer { .. } | Stage::Running(_) | Stage::Answered => {
                unreachable!("data was asked for once")
            }
        }
    }

    /// Bytes of a parameter list, or of the one block of WRITE SAME.
    pub(super) fn keep_bytes(&mut self, id: TaskId, offset: u32, bytes: &[u8]) {
        let Some(task) = self.task_mut(id) else {
            return;
        };
        let end = index(offset) + bytes.len();
        if task.bytes.len() < end {
            task.bytes.resize(end, 0);
        }
        task.bytes[index(offset)..end].copy_from_slice(bytes);
    }

    pub(super) fn place(&self, id: TaskId) -> Place {
        match self.task(id).and_then(|task| task.buffer) {
            Some(buffer) => Place::Buffer(buffer),
            None => Place::Bytes,
        }
    }

    pub(super) fn abort(&mut self, now: Time, id: TaskId) {
        let Some(task) = self.task_mut(id) else {
            return;
        };
        task.aborted = true;
        match task.stage {
            Stage::Running(_) => {
                let (volume, ticket) = (task.volume, task.ticket());
                self.mirror(volume, |volume, out| volume.cancel(now, ticket, out));
            }
            Stage::NoBuffer { .. } | Stage::Parameters | Stage::Receiving(_) => {
                self.drop_task(now, id)
            }
            Stage::Answered => {}
        }
    }

    /// An aborted task has ended, and nothing of it can happen any more.
    pub(super) fn drop_task(&mut self, now: Time, id: TaskId) {
        self.task_mut(id)
            .expect("the caller knows that the task is there")
            .stage = Stage::Answered;
        self.session(|endpoint, out| endpoint.dropped(now, id, out));
        self.queue.push_back(Item::Free(id));
    }

    /// Answers a command whose SCSI state changed only after both nodes have the change.
    fn answer_with_state(&mut self, now: Time, id: TaskId, answer: Answer) {
        let volume = self
            .task(id)
            .expect("the caller knows that the task is there")
            .volume;
        match self.volumes[volume].disk.take_state() {
            None => self.answer(now, id, answer, DataIn::None),
            Some((kind, bytes)) => self.begin_state(now, id, answer, kind, bytes),
        }
    }

    /// Ends an operation's task.
    pub(super) fn finish(&mut self, now: Time, id: TaskId, outcome: Outcome, data_in: DataIn) {
        let task = self
            .task(id)
            .expect("the caller knows that the task is there");
        if task.aborted {
            return self.drop_task(now, id);
        }
        let (volume, nexus) = (task.volume, task.nexus.0);
        let slot = &self.volumes[volume];
        let answer = if slot.live || outcome == Outcome::Good {
            self.volumes[volume].disk.finish(nexus, outcome)
        } else {
            // Trying again is of no use: 05/25/00, LOGICAL UNIT NOT SUPPORTED.
            no_lun(&task.cdb, &self.luns_of(slot.settings.target))
        };
        self.answer(now, id, answer, data_in);
    }

    /// Sends the response and counts it.
    pub(super) fn answer(&mut self, now: Time, id: TaskId, answer: Answer, blocks: DataIn) {
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        task.stage = Stage::Answered;
        let (volume, sort, taken, data_out) = (
            task.volume,
            task.sort,
            now.saturating_sub(task.started),
            task.data_out,
        );
        let received = u64::from(task.received());
        if let Some(slot) = self.volumes.get_mut(volume) {
            let counters = &mut slot.counters;
            match sort {
                Sort::Read => counters.reads.add(taken),
                Sort::Write => counters.writes.add(taken),
                Sort::Flush => counters.flushes.add(taken),
                Sort::Other => {}
            }
            if answer.status != 0 {
                counters.failed += 1;
            } else if sort == Sort::Write {
                counters.written_bytes += received;
            } else if let DataIn::Buffer { len } = blocks {
                counters.read_bytes += u64::from(len);
            }
        }
        let data_in = match blocks {
            DataIn::Buffer { .. } if answer.status == 0 => blocks,
            _ if answer.data.is_empty() => DataIn::None,
            _ => DataIn::Bytes(answer.data),
        };
        let response = Response {
            status: answer.status,
            sense: answer.sense,
            data_in,
            data_out,
        };
        self.session(|endpoint, out| endpoint.respond(now, id, response, out));
        self.queue.push_back(Item::Free(id));
    }

    fn insert_task(&mut self, task: Task) {
        let slot = index(task.id.slot);
        if self.tasks.len() <= slot {
            self.tasks.resize_with(slot + 1, || None);
        }
        assert!(
            self.tasks[slot].is_none(),
            "a task's slot is reused after its response"
        );
        self.tasks[slot] = Some(task);
    }

    pub(super) fn free_task(&mut self, id: TaskId) {
        let Some(task) = self.tasks[index(id.slot)].take_if(|task| task.id == id) else {
            return;
        };
        if let Some(buffer) = task.buffer {
            self.release(buffer);
        }
        if let Some(slot) = self.volumes.get_mut(task.volume) {
            slot.tasks -= 1;
        }
        if let Some(nexus) = self.nexuses.get_mut(&task.nexus) {
            nexus.tasks -= 1;
        }
    }

    pub(super) fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks
            .get(index(id.slot))?
            .as_ref()
            .filter(|task| task.id == id)
    }

    pub(super) fn task_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks
            .get_mut(index(id.slot))?
            .as_mut()
            .filter(|task| task.id == id)
    }

    /// The connection of the task's session may want something else now.
    pub(super) fn touch_task(&mut self, id: TaskId) {
        if let Some(nexus) = self.task(id).and_then(|task| self.nexuses.get(&task.nexus)) {
            self.touched.push(nexus.conn);
        }
    }

    /// Bytes a logical block of the task's volume.
    pub(super) fn block_size(&self, id: TaskId) -> u32 {
        let volume = self.task(id).map_or(usize::MAX, |task| task.volume);
        self.volumes
            .get(volume)
            .map_or(512, |slot| slot.settings.spec.block_size)
    }
}

/// The number in a single-level LUN field with peripheral or flat addressing, if it is below 256.
pub(super) fn lun_number(lun: [u8; 8]) -> Option<u8> {
    let [first, second, rest @ ..] = lun;
    let simple = matches!(first, 0x00 | 0x40) && rest == [0; 6];
    simple.then_some(second)
}
