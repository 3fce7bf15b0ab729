//! Listening sockets: data portals, opened and closed by orders, and sync addresses, always open.

use super::FromThread;
use super::links::{Core, Links};
use super::tokens::Owner;
use lockstep_engine::interface::Origin;
use lockstep_mirror::control::Time;
use lockstep_uring::{Completion, Errno, Gift, Handle, Op, OpId, net};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Pause before an address that could not be listened at is tried again: an address that moves
/// with a network interface is there soon.
const RETRY: Duration = Duration::from_millis(200);

/// All of a shard's listening sockets.
pub(super) struct Portals {
    listeners: Vec<Listener>,
}

struct Listener {
    address: SocketAddr,
    origin: Origin,
    /// Whether it shall listen.
    wanted: bool,
    listening: Option<(Handle, OpId)>,
    /// Counts openings, so that late completions of an earlier one are known.
    epoch: u32,
    retry: Time,
    /// What was last reported.
    error: Option<Errno>,
}

impl Portals {
    pub(super) fn new(portals: &[SocketAddr], sync: &[SocketAddr]) -> Self {
        let portals = (0..)
            .zip(portals)
            .map(|(number, &address)| (address, Origin::Portal(number)));
        let sync = (0..)
            .zip(sync)
            .map(|(path, &address)| (address, Origin::Partner(path)));
        let listeners = portals
            .chain(sync)
            .map(|(address, origin)| Listener {
                address,
                origin,
                wanted: matches!(origin, Origin::Partner(_)),
                listening: None,
                epoch: 0,
                retry: Time::ZERO,
                error: None,
            })
            .collect();
        Self { listeners }
    }

    /// Opens or closes the data portals.
    pub(super) fn want_data(
        &mut self,
        core: &mut Core,
        wanted: bool,
        reports: &mut Vec<FromThread>,
    ) {
        for listener in self
            .listeners
            .iter_mut()
            .filter(|listener| matches!(listener.origin, Origin::Portal(_)))
        {
            listener.wanted = wanted;
            listener.retry = Time::ZERO;
            if !wanted && let Some((socket, accept)) = listener.listening.take() {
                // At once: who connects from now on is refused, and the address is free.
                net::shut(&*socket);
                core.ring.cancel(accept);
            }
        }
        self.housekeeping(core, reports);
    }

    /// Opens what shall be open and is not.
    pub(super) fn housekeeping(&mut self, core: &mut Core, reports: &mut Vec<FromThread>) {
        for (index, listener) in (0u16..).zip(&mut self.listeners) {
            if !listener.wanted || listener.listening.is_some() || core.now < listener.retry {
                continue;
            }
            match net::listen(listener.address)
                .and_then(|socket| Ok((net::local(&socket)?, Rc::new(socket))))
            {
                Ok((address, socket)) => {
                    listener.epoch = listener.epoch.wrapping_add(1);
                    let owner = Owner::Accept {
                        listener: index,
                        epoch: listener.epoch,
                    };
                    let accept = core.ring.submit(
                        owner.token(),
                        Op::Accept {
                            socket: Rc::clone(&socket),
                        },
                    );
                    listener.listening = Some((socket, accept));
                    listener.error = None;
                    reports.push(FromThread::Listening { address });
                }
                Err(error) => {
                    listener.retry = core.now + RETRY;
                    if listener.error.replace(error) != Some(error) {
                        reports.push(FromThread::NotListening {
                            address: listener.address,
                            error,
                        });
                    }
                }
            }
        }
    }

    /// An accept brought a connection, or has ended.
    pub(super) fn accepted(
        &mut self,
        core: &mut Core,
        links: &mut Links,
        index: u16,
        epoch: u32,
        completion: Completion,
    ) {
        let listener = &mut self.listeners[usize::from(index)];
        if listener.epoch != epoch || listener.listening.is_none() {
            // Of a portal that was closed meanwhile: the connection is refused.
            return;
        }
        if let Gift::Socket(socket) = completion.gift {
            links.arrived(core, socket, listener.origin);
        }
        if !completion.more {
            // No descriptor was free, say: begins anew, after a pause that lets others close.
            listener.listening = None;
            listener.retry = core.now + RETRY;
        }
    }
}
