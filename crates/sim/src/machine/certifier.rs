//! The supervisor of a node's daemon: after a kill it certifies the end to the partner, with the
//! engine's own certifier. Now and then it sends an old certificate, or one whose run ended long
//! ago by the time it arrives.

use super::{Machine, PORT_CONTROL};
use crate::context::{Context, What};
use crate::machine::control::{CLUSTER, SECRET};
use crate::network::{EndId, Note};
use crate::world::VOLUME;
use core::time::Duration;
use lockstep_engine::certificate::{Certificate, Certifier, Left};
use lockstep_mirror::control::{Incarnation, NodeId};
use lockstep_mirror::metadata_layout::{SUPERBLOCK_LEN, SUPERBLOCK_OFFSETS};
use lockstep_mirror::superblock::{Found, Superblock};
use std::collections::BTreeMap;

/// A dial that was not answered by then is given up.
const DIAL_TIME: Duration = Duration::from_millis(300);
/// A partner that is there is connected within this, and answers.
const PATIENCE: Duration = Duration::from_millis(2200);
/// Certificates that are kept to be sent again.
const KEPT: usize = 4;

/// What happens to a supervisor.
#[derive(Debug)]
pub enum SupervisorEvent {
    /// It begins to certify the last run, or one before.
    Begin {
        /// How many runs before the last one.
        back: usize,
    },
    /// It gives up.
    End(u64),
}

/// See the module.
#[derive(Default)]
pub struct Supervisor {
    /// Of runs that ended, the last one last.
    known: Vec<Certificate>,
    sending: Option<Sending>,
    attempts: u64,
}

struct Sending {
    attempt: u64,
    certificate: Certificate,
    talks: BTreeMap<EndId, Certifier>,
    dials: Vec<EndId>,
}

impl Machine {
    /// What can be said about a run that was just killed, now that its last I/O has ended.
    pub(super) fn note_end(&mut self, run: u64) {
        let files = self.volumes.entry(VOLUME.0).or_default();
        let slots = SUPERBLOCK_OFFSETS.map(|offset| {
            let mut bytes = vec![0; usize::try_from(SUPERBLOCK_LEN).expect("4096")];
            files.meta.read(offset, &mut bytes);
            bytes
        });
        let left = match Superblock::choose([&slots[0], &slots[1]]) {
            Ok(Found::Valid { superblock, .. }) => vec![Left::of(&superblock)],
            _ => Vec::new(),
        };
        let node = self.node_id();
        self.supervisor.known.push(Certificate {
            node,
            partner: NodeId(3 - node.0),
            cluster: CLUSTER,
            secret: SECRET.into(),
            run: Incarnation(run),
            left,
        });
        if self.supervisor.known.len() > KEPT {
            self.supervisor.known.remove(0);
        }
    }

    /// Something happens to the supervisor.
    pub fn supervisor_event(&mut self, ctx: &mut Context, event: SupervisorEvent) {
        match event {
            SupervisorEvent::Begin { back } => self.begin_certifying(ctx, back),
            SupervisorEvent::End(attempt) => {
                let current = self.supervisor.sending.as_ref();
                if current.is_some_and(|it| it.attempt == attempt) {
                    self.end_certifying(ctx);
                }
            }
        }
    }

    fn begin_certifying(&mut self, ctx: &mut Context, back: usize) {
        let known = &self.supervisor.known;
        let Some(certificate) = known.iter().rev().nth(back).cloned() else {
            return;
        };
        // The listener of the second node is the daemon's while it runs.
        let dials = self.host == 0;
        if !ctx.network.is_on(self.host) || !dials && self.process.is_some() {
            return;
        }
        self.end_certifying(ctx);
        ctx.trace(self.host, || format!("certifies {certificate:?}"));
        ctx.count("certificates sent");
        if back > 0 || self.process.is_some() {
            ctx.count("certificates of earlier runs sent");
        }
        self.supervisor.attempts += 1;
        let attempt = self.supervisor.attempts;
        let mut sending = Sending {
            attempt,
            certificate,
            talks: BTreeMap::new(),
            dials: Vec::new(),
        };
        if dials {
            for link in self.control_links.clone() {
                let end = ctx
                    .network
                    .dial(ctx.now, link, self.host, PORT_CONTROL, DIAL_TIME);
                sending.dials.push(end);
            }
        }
        self.supervisor.sending = Some(sending);
        let host = self.host;
        let event = SupervisorEvent::End(attempt);
        ctx.after(PATIENCE, What::Supervisor { host, event });
    }

    /// Nothing more is sent; what is on its way may still arrive.
    pub(super) fn end_certifying(&mut self, ctx: &mut Context) {
        let Some(sending) = self.supervisor.sending.take() else {
            return;
        };
        for end in sending.talks.into_keys().chain(sending.dials) {
            ctx.network.close(ctx.now, end);
        }
    }

    /// Takes what the kernel says if it concerns the supervisor's connections.
    pub(super) fn supervisor_heard(&mut self, ctx: &mut Context, note: &Note) -> bool {
        let runs = self.process.is_some();
        let Some(sending) = &mut self.supervisor.sending else {
            return false;
        };
        match *note {
            Note::Incoming { end, port, .. } if port == PORT_CONTROL && !runs => {
                ctx.network.accept(ctx.now, end);
                self.greet(ctx, end);
            }
            Note::Opened(end) if sending.dials.contains(&end) => self.greet(ctx, end),
            Note::Refused(end) if sending.dials.contains(&end) => {
                sending.dials.retain(|it| *it != end);
            }
            Note::Readable(end) if sending.talks.contains_key(&end) => self.listen_to(ctx, end),
            Note::Closed(end) if sending.talks.remove(&end).is_some() => {
                ctx.network.close(ctx.now, end);
            }
            _ => return false,
        }
        true
    }

    fn greet(&mut self, ctx: &mut Context, end: EndId) {
        let nonce = self.prng.seed();
        let sending = self.supervisor.sending.as_mut().expect("it was looked at");
        sending.dials.retain(|it| *it != end);
        let (certifier, first) = Certifier::new(&sending.certificate, nonce);
        sending.talks.insert(end, certifier);
        ctx.network.send(ctx.now, end, &first);
        self.listen_to(ctx, end);
    }

    fn listen_to(&mut self, ctx: &mut Context, end: EndId) {
        let bytes = ctx.network.arrived(end).to_vec();
        ctx.network.take(end, bytes.len());
        let sending = self.supervisor.sending.as_mut().expect("it was looked at");
        let certifier = sending.talks.get_mut(&end).expect("it was looked at");
        match certifier.take(&bytes) {
            Ok(reply) => ctx.network.send(ctx.now, end, &reply),
            // A flipped bit.
            Err(_) => {
                sending.talks.remove(&end);
                return ctx.network.close(ctx.now, end);
            }
        }
        match certifier.answer() {
            Some(true) => ctx.count("certificates taken"),
            Some(false) => ctx.count("certificates refused"),
            None => return,
        }
        self.end_certifying(ctx);
    }
}
