//! The node's sockets: wants are fulfilled from what has arrived, and what is sent goes to the
//! kernel a moment later, for only then may the blocks' buffer be let go.

use super::{Local, Machine, PORT_CONTROL, PORT_DATA, PORT_ISCSI, ProcessEvent};
use crate::context::{Context, What};
use crate::memory::size;
use crate::network::{EndId, LinkId, Note};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use lockstep_engine::interface::iscsi::ConnId;
use lockstep_engine::interface::{Body, Event, Head, Origin, Want};
use lockstep_mirror::frame::HEADER_LEN;
use std::collections::VecDeque;

/// A dial of a data channel that was not answered by then is begun anew, as in the daemon.
const DATA_DIAL_TIME: Duration = Duration::from_millis(300);

/// One socket of the data path.
pub(super) struct Connection {
    id: ConnId,
    end: EndId,
    queue: VecDeque<(Head, Body)>,
    transmitting: bool,
    closing: bool,
    /// The other side has closed.
    ended: bool,
    /// Bytes of the present want that were taken already.
    fulfilled: u32,
}

impl Machine {
    /// The kernel tells the process something about a stream.
    pub fn note(&mut self, ctx: &mut Context, note: Note) {
        if self.supervisor_heard(ctx, &note) {
            return;
        }
        if let Note::Incoming { end, link, port } = note {
            if !self.listens(port) {
                return ctx.network.refuse(end);
            }
            // The kernel takes it, whether or not the process stands still.
            ctx.network.accept(ctx.now, end);
            return self.or_later(ctx, ProcessEvent::Accepted { end, link, port });
        }
        self.or_later(ctx, ProcessEvent::Note(note));
    }

    /// Data portals are open or closed; the partner's ports are always open.
    fn listens(&self, port: u16) -> bool {
        self.process.as_ref().is_some_and(|process| match port {
            PORT_ISCSI => process.control.portals_open,
            PORT_DATA | PORT_CONTROL => true,
            _ => false,
        })
    }

    fn or_later(&mut self, ctx: &mut Context, event: ProcessEvent) {
        if let Some(run) = self.process.as_ref().map(|process| process.run) {
            self.process_event(ctx, run, event);
        }
    }

    pub(super) fn accepted(&mut self, ctx: &mut Context, end: EndId, link: LinkId, port: u16) {
        match port {
            PORT_ISCSI => self.connected(ctx, end, Origin::Portal(0)),
            PORT_DATA => {
                let path = self.sync_links.iter().position(|it| *it == link);
                let path = path.expect("data come over these links");
                let path = u16::try_from(path).expect("few links");
                self.connected(ctx, end, Origin::Partner(path));
            }
            _ => self.control_connected(ctx, end, link),
        }
    }

    pub(super) fn heard(&mut self, ctx: &mut Context, note: Note) {
        match note {
            Note::Incoming { .. } => unreachable!("the kernel has taken it"),
            Note::Opened(end) => match self
                .process
                .as_mut()
                .and_then(|process| process.dials.remove(&end))
            {
                Some(dial) => self.connected(ctx, end, Origin::Dialed(dial)),
                None => self.control_opened(ctx, end),
            },
            Note::Refused(end) => match self
                .process
                .as_mut()
                .and_then(|process| process.dials.remove(&end))
            {
                Some(dial) => self.shard_event(ctx, Event::DialFailed { dial }),
                None => self.control_refused(ctx, end),
            },
            Note::Readable(end) => match self.slot_of(end) {
                Some(slot) => self.pump_now(ctx, slot),
                None => self.control_readable(ctx, end),
            },
            Note::Closed(end) => match self.slot_of(end) {
                Some(slot) => {
                    self.connection(slot).ended = true;
                    self.pump_now(ctx, slot);
                }
                None => self.control_closed(ctx, end),
            },
        }
    }

    fn pump_now(&mut self, ctx: &mut Context, slot: usize) {
        self.again(slot);
        self.work_off(ctx);
    }

    fn slot_of(&self, end: EndId) -> Option<usize> {
        self.process.as_ref()?.ends.get(&end).copied()
    }

    fn connection(&mut self, slot: usize) -> &mut Connection {
        let process = self.process.as_mut().expect("the process has connections");
        process.connections[slot]
            .as_mut()
            .expect("the slot is in use")
    }

    pub(super) fn pump_all(&mut self, ctx: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let slots: Vec<usize> = process.ends.values().copied().collect();
        process.local.extend(slots.into_iter().map(Local::Pump));
        self.work_off(ctx);
        self.control_pump_all(ctx);
    }

    fn connected(&mut self, ctx: &mut Context, end: EndId, origin: Origin) {
        let Some(process) = &mut self.process else {
            return;
        };
        let slot = match process.connections.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                process.connections.push(None);
                process.generations.push(0);
                process.connections.len() - 1
            }
        };
        process.generations[slot] += 1;
        let number = u32::try_from(slot).expect("few connections");
        let id = ConnId {
            slot: number,
            generation: process.generations[slot],
        };
        let queue = VecDeque::new();
        let connection = Connection {
            id,
            end,
            queue,
            transmitting: false,
            closing: false,
            ended: false,
            fulfilled: 0,
        };
        process.connections[slot] = Some(connection);
        process.ends.insert(end, slot);
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 40_000);
        ctx.trace(self.host, || format!("connection {slot} from {origin:?}"));
        self.shard_event(
            ctx,
            Event::Connected {
                conn: id,
                origin,
                peer,
            },
        );
    }

    pub(super) fn dial(&mut self, ctx: &mut Context, dial: u32, address: u16) {
        let link = self.sync_links[usize::from(address)];
        let end = ctx
            .network
            .dial(ctx.now, link, self.host, PORT_DATA, DATA_DIAL_TIME);
        let process = self.process.as_mut().expect("its shard dials");
        process.dials.insert(end, dial);
    }

    pub(super) fn wake(&mut self, conn: ConnId) {
        let slot = size(conn.slot);
        if self.current(conn) {
            let process = self.process.as_mut().expect("its shard spoke");
            process.local.push_back(Local::Pump(slot));
        }
    }

    fn current(&self, conn: ConnId) -> bool {
        let connections = self.process.as_ref().map(|process| &process.connections);
        let connection =
            connections.and_then(|connections| connections.get(size(conn.slot))?.as_ref());
        connection.is_some_and(|connection| connection.id == conn)
    }

    pub(super) fn send(&mut self, ctx: &mut Context, conn: ConnId, head: Head, body: Body) {
        if !self.current(conn) {
            // It closed in this very turn, after the engine had spoken.
            if let Body::Blocks { buffer, .. } = body {
                self.turn(ctx, Event::Sent { buffer });
            }
            return;
        }
        if usize::from(head.len) == HEADER_LEN {
            ctx.trace(self.host, || {
                format!("sends on {}: {}", conn.slot, frame(&head, &body))
            });
        }
        let connection = self.connection(size(conn.slot));
        connection.queue.push_back((head, body));
        self.transmit_soon(ctx, size(conn.slot));
    }

    pub(super) fn close(&mut self, ctx: &mut Context, conn: ConnId) {
        if self.current(conn) {
            self.connection(size(conn.slot)).closing = true;
            self.transmit_soon(ctx, size(conn.slot));
        }
    }

    /// Closes at once; what is queued is lost, and the peer is told.
    pub(super) fn abort(&mut self, ctx: &mut Context, conn: ConnId) {
        if !self.current(conn) {
            return;
        }
        ctx.count("data channels given up");
        let slot = size(conn.slot);
        let end = self.connection(slot).end;
        ctx.network.abort(ctx.now, end);
        self.forget(ctx, slot);
    }

    fn transmit_soon(&mut self, ctx: &mut Context, slot: usize) {
        let delay = if self.prng.chance(20) {
            self.prng.millis(1, 30)
        } else {
            self.prng.micros(2, 60)
        };
        let connection = self.connection(slot);
        if !connection.transmitting {
            connection.transmitting = true;
            let event = ProcessEvent::Transmit(connection.end);
            let run = self.process.as_ref().expect("it has a connection").run;
            ctx.after(
                delay,
                What::Process {
                    host: self.host,
                    run,
                    event,
                },
            );
        }
    }

    /// What was queued goes out in one send.
    pub(super) fn transmit(&mut self, ctx: &mut Context, end: EndId) {
        let Some(slot) = self.slot_of(end) else {
            return;
        };
        let connection = self.connection(slot);
        connection.transmitting = false;
        let closing = connection.closing;
        let queue = core::mem::take(&mut connection.queue);
        let process = self.process.as_mut().expect("it has a connection");
        let mut bytes = Vec::new();
        for (head, body) in queue {
            bytes.extend_from_slice(&head.bytes[..usize::from(head.len)]);
            match body {
                Body::None => {}
                Body::Bytes(body) => bytes.extend_from_slice(&body),
                Body::Blocks {
                    buffer,
                    at,
                    len,
                    pad,
                    digest,
                } => {
                    let start = bytes.len();
                    bytes.extend_from_slice(process.memory.piece(buffer, at, len));
                    if pad {
                        bytes.resize(start + size(len).next_multiple_of(4), 0);
                    }
                    if digest {
                        let crc = crc32c::crc32c(&bytes[start..]);
                        bytes.extend_from_slice(&crc.to_le_bytes());
                    }
                    process.local.push_back(Local::Sent(buffer));
                }
            }
        }
        ctx.network.send(ctx.now, end, &bytes);
        if closing {
            ctx.network.close(ctx.now, end);
            self.forget(ctx, slot);
        }
        self.work_off(ctx);
    }

    /// The socket is gone: what was queued is let go, then the shard is told.
    fn forget(&mut self, ctx: &Context, slot: usize) {
        let process = self.process.as_mut().expect("it has a connection");
        let connection = process.connections[slot]
            .take()
            .expect("the slot is in use");
        process.ends.remove(&connection.end);
        for (_, body) in connection.queue {
            if let Body::Blocks { buffer, .. } = body {
                self.turn(ctx, Event::Sent { buffer });
            }
        }
        ctx.trace(self.host, || format!("connection {slot} is closed"));
        self.turn(
            ctx,
            Event::Closed {
                conn: connection.id,
            },
        );
    }

    /// Fulfils the present want as far as bytes have arrived.
    pub(super) fn pump(&mut self, ctx: &mut Context, slot: usize) {
        let process = self.process.as_mut().expect("it has a connection");
        let Some(connection) = process.connections[slot].as_mut() else {
            return;
        };
        let arrived = ctx.network.arrived(connection.end);
        let have = u32::try_from(arrived.len()).expect("queues are bounded");
        let (conn, end) = (connection.id, connection.end);
        match process.shard.want(conn) {
            _ if connection.closing => {}
            Want::Bytes(len) if have >= len => {
                let bytes = arrived[..size(len)].to_vec();
                ctx.network.take(end, size(len));
                self.turn(
                    ctx,
                    Event::Bytes {
                        conn,
                        bytes: &bytes,
                    },
                );
                return self.again(slot);
            }
            Want::Data { buffer, at, len } if have > 0 => {
                let done = connection.fulfilled;
                let taken = have.min(len - done);
                process
                    .memory
                    .piece(buffer, at + done, taken)
                    .copy_from_slice(&arrived[..size(taken)]);
                ctx.network.take(end, size(taken));
                connection.fulfilled += taken;
                if done + taken == len {
                    connection.fulfilled = 0;
                    let crc = process.memory.crc(buffer, at, len);
                    self.turn(ctx, Event::Data { conn, crc });
                }
                return self.again(slot);
            }
            Want::Skip(len) if have > 0 => {
                let taken = have.min(len - connection.fulfilled);
                ctx.network.take(end, size(taken));
                connection.fulfilled += taken;
                if connection.fulfilled == len {
                    connection.fulfilled = 0;
                    self.turn(ctx, Event::Skipped { conn });
                }
                return self.again(slot);
            }
            Want::Bytes(_) | Want::Data { .. } | Want::Skip(_) | Want::Wait => {}
        }
        if self.connection(slot).ended {
            ctx.network.close(ctx.now, end);
            self.forget(ctx, slot);
        }
    }

    fn again(&mut self, slot: usize) {
        let process = self.process.as_mut().expect("it has a connection");
        process.local.push_back(Local::Pump(slot));
    }

    /// What each socket of the data path waits for, for messages.
    pub(super) fn sockets(&self, ctx: &Context) -> String {
        let Some(process) = &self.process else {
            return String::new();
        };
        let describe = |connection: &Connection| {
            let arrived = ctx.network.arrived(connection.end).len();
            let want = process.shard.want(connection.id);
            format!(
                "{}: wants {want:?}, {arrived} bytes are there; ",
                connection.id.slot
            )
        };
        process.connections.iter().flatten().map(describe).collect()
    }

    /// All sockets of a killed process; its kernel closes them.
    pub(super) fn close_all(&mut self, ctx: &mut Context, ends: Vec<EndId>) {
        for end in ends {
            if self.prng.chance(500) {
                ctx.network.close(ctx.now, end);
            } else {
                ctx.network.abort(ctx.now, end);
            }
        }
    }

    /// All sockets of the process.
    pub(super) fn ends(&self) -> Vec<EndId> {
        let Some(process) = &self.process else {
            return Vec::new();
        };
        process
            .ends
            .keys()
            .chain(process.dials.keys())
            .copied()
            .chain(process.control.ends())
            .collect()
    }
}

/// A frame between the partners, as `docs/wire-format.md` describes it, for the trace.
fn frame(head: &Head, body: &Body) -> String {
    let kind = u16::from_be_bytes([head.bytes[10], head.bytes[11]]);
    let body = match body {
        Body::None => String::new(),
        Body::Bytes(bytes) => format!(", {} bytes", bytes.len()),
        Body::Blocks { buffer, len, .. } => format!(", {len} bytes of {buffer:?}"),
    };
    format!("frame {kind:#04x}{body}")
}
