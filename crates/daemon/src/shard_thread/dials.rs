//! Connecting to the partner, each time from our own end of the link that is meant: the route
//! could lead out of another interface, and the partner's firewall knows the configured addresses.

use super::links::{Core, Links};
use super::tokens::Owner;
use lockstep_engine::interface::{Event, Origin};
use lockstep_mirror::control::Time;
use lockstep_uring::{Errno, Handle, Op, OpId, net};
use slab::Slab;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// A partner that does not answer in this time is tried again, from a new socket: the kernel would
/// repeat its question only after a second, and then after pauses that double.
const CONNECT_TIME: Duration = Duration::from_millis(300);

/// Dials in progress.
pub(super) struct Dials {
    /// Both ends of each link: ours, and where the partner listens.
    ends: Vec<(IpAddr, SocketAddr)>,
    table: Slab<Dialing>,
    failed: Vec<u32>,
}

struct Dialing {
    dial: u32,
    socket: Handle,
    op: OpId,
    by: Time,
}

impl Dials {
    pub(super) fn new(ends: Vec<(IpAddr, SocketAddr)>) -> Self {
        Self {
            ends,
            table: Slab::new(),
            failed: Vec::new(),
        }
    }

    pub(super) fn dial(&mut self, core: &mut Core, dial: u32, address: u16) {
        // No such link: the shard was told of more than there are. Or no descriptor is free, or our
        // address is gone with its interface; tried again.
        let Some(&(local, address)) = self.ends.get(usize::from(address)) else {
            return self.failed.push(dial);
        };
        let Ok(socket) = net::stream_from(local).map(Rc::new) else {
            return self.failed.push(dial);
        };
        let entry = self.table.vacant_entry();
        let index = u32::try_from(entry.key()).expect("a few dials");
        let op = Op::Connect {
            socket: Rc::clone(&socket),
            address,
        };
        let op = core.ring.submit(Owner::Dial(index).token(), op);
        entry.insert(Dialing {
            dial,
            socket,
            op,
            by: core.now + CONNECT_TIME,
        });
    }

    /// Tells the shard of dials that failed at once. False if there were none.
    pub(super) fn work(&mut self, core: &mut Core) -> bool {
        let mut worked = false;
        while let Some(dial) = self.failed.pop() {
            core.event(Event::DialFailed { dial });
            worked = true;
        }
        worked
    }

    pub(super) fn completed(
        &mut self,
        core: &mut Core,
        links: &mut Links,
        index: u32,
        result: Result<u32, Errno>,
    ) {
        let Dialing { dial, socket, .. } = self.table.remove(index as usize);
        // The operation has given its share of the socket back.
        let socket = Rc::into_inner(socket).filter(|_| result.is_ok());
        let connected =
            socket.is_some_and(|socket| links.insert(core, socket, Origin::Dialed(dial)));
        if !connected {
            core.event(Event::DialFailed { dial });
        }
    }

    pub(super) fn housekeeping(&self, core: &mut Core) {
        for (_, dialing) in self
            .table
            .iter()
            .filter(|(_, dialing)| dialing.by <= core.now)
        {
            core.ring.cancel(dialing.op);
        }
    }
}
