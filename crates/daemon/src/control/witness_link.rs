//! The way to the witness: dialed while the pool configuration names one, and what the pool
//! configuration must say about it.

use super::links::{self, LinkInput, LinkSender};
use super::{Change, Control, Input};
use crate::pool::PoolVolume;
use crate::shard_thread::boot_time;
use lockstep_api::status::Level;
use lockstep_engine::node_interface::NodeEvent;
use lockstep_mirror::control::{VolumeId, WitnessId};
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Stands for the witness where links to the partner have the index of their path.
pub(super) const PATH: usize = usize::MAX;

/// Inputs of one link that wait.
const INPUTS: usize = 64;

/// Connections to the witness.
#[derive(Debug, Default)]
pub(super) struct WitnessLink {
    address: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
    senders: Vec<LinkSender>,
    /// Why it cannot be reached; empty: it can.
    pub(super) error: String,
}

impl WitnessLink {
    pub(super) fn up(&mut self, sender: LinkSender) {
        self.error.clear();
        self.senders.push(sender);
    }

    pub(super) fn down(&mut self, link: u32, why: &str) {
        let before = self.senders.len();
        self.senders.retain(|it| it.link != link);
        if before != self.senders.len() {
            why.clone_into(&mut self.error);
        }
    }

    pub(super) fn failed(&mut self, why: String) {
        self.error = why;
    }

    pub(super) fn is(&self, link: u32) -> bool {
        self.senders.iter().any(|it| it.link == link)
    }

    /// Sends; a link whose other end does not read is closed.
    pub(super) fn send(&mut self, link: u32, bytes: Vec<u8>) {
        let sender = self.senders.iter().find(|it| it.link == link);
        if !sender.is_some_and(|it| it.send(bytes)) {
            self.close(link);
        }
    }

    /// Closes it.
    pub(super) fn close(&mut self, link: u32) {
        self.senders.retain(|it| it.link != link);
    }

    fn stop(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.senders.clear();
        self.error.clear();
    }
}

impl Control {
    /// The pool configuration in force names this witness, or none.
    pub(super) fn follow_witness(&mut self) {
        let address = self.pool.witness.as_ref().map(|it| it.address.0);
        let secret = self
            .pool
            .witness
            .as_ref()
            .map(|it| it.secret.as_bytes().into());
        self.tell(NodeEvent::WitnessSecret(secret));
        if address != self.witness.address {
            self.witness.stop();
            self.witness.address = address;
            if let Some(address) = address {
                let (sender, inputs) = mpsc::channel(INPUTS);
                let numbers = self.link_numbers.clone();
                let dial = tokio::spawn(links::dial_witness(PATH, address, numbers, sender));
                let forward = tokio::spawn(forward(inputs, self.inputs.clone()));
                self.witness.tasks = vec![dial, forward];
            }
        }
        let volumes: Vec<_> = self.pool.volumes.clone();
        for volume in volumes {
            let witness = self.witness_of(&volume);
            let volume = VolumeId(volume.uuid.0);
            self.tell(NodeEvent::Witness { volume, witness });
        }
    }

    /// Who is to vote for a volume besides the two nodes.
    pub(super) fn witness_of(&self, volume: &PoolVolume) -> Option<WitnessId> {
        let majority = volume.strategy == crate::pool::Strategy::Majority;
        let mirrored = volume.replicas.len() == 2;
        let life = self.pool.witness.as_ref().and_then(|it| it.life);
        life.filter(|_| majority && mirrored).map(WitnessId)
    }

    /// A witness whose votes are of another life than the pool configuration says is new, or has
    /// lost them. The two nodes admit it together; only then does its vote count.
    pub(super) fn admit_witness(&mut self) {
        let status = self.node.status(boot_time());
        let both = status.partner_alive || status.partner.is_none();
        let first = self.config.node.number == 1;
        let (Some(met), Some(known)) = (status.witness.id, &self.pool.witness) else {
            return;
        };
        if known.life == Some(met.0) || !both || !first || self.change.is_some() || self.stopping {
            return;
        }
        let next = self.pool.with_witness_life(met.0);
        let text = match known.life {
            None => "the witness is admitted".to_owned(),
            Some(_) => "the witness has none of its former votes: it is admitted anew".to_owned(),
        };
        self.events.add(Level::Degraded, "node", "witness", &text);
        self.change = Some(Change {
            what: text,
            request: None,
            reply: None,
            outcome: None,
        });
        let document = next.text().into_bytes();
        self.tell(NodeEvent::ProposeConfig { document });
    }
}

async fn forward(mut from: mpsc::Receiver<LinkInput>, to: mpsc::Sender<Input>) {
    while let Some(input) = from.recv().await {
        if to.send(Input::Link(input)).await.is_err() {
            return;
        }
    }
}
