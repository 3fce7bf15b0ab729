//! The paths to the partner as their driver knows them: what their links bring goes to `Node`, and
//! what full-size frames do is told to people.

use super::frames::Finding;
use super::links::LinkInput;
use super::{Control, Link, facts, witness_link};
use lockstep_api::status::Level;
use lockstep_engine::node_interface::{LinkId, NodeEvent};
use std::sync::Arc;
use tokio::sync::Notify;

/// What the driver knows of one path to the partner.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// Why it did not work the last time; empty: it did.
    pub(super) error: String,
    /// Bytes of its control links.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// What full-size frames did the last time.
    pub(super) frames: Option<Finding>,
    /// Asks for that to be found out again.
    pub(super) check: Arc<Notify>,
}

impl Control {
    /// Something happened on a control link.
    pub(super) fn link(&mut self, input: LinkInput) {
        match input {
            LinkInput::Up { path, sender } => {
                let link = sender.link;
                if path == witness_link::PATH {
                    self.witness.up(sender);
                    let link = LinkId(link.into());
                    return self.tell(NodeEvent::WitnessUp { link });
                }
                self.links.insert(link, Link { path, sender });
                self.paths[path].check.notify_one();
                let path = u16::try_from(path).expect("at most 16 paths");
                self.tell(NodeEvent::LinkUp {
                    link: LinkId(link.into()),
                    path,
                });
            }
            LinkInput::Bytes { link, bytes } => {
                if let Some(known) = self.links.get(&link) {
                    self.paths[known.path].received += bytes.len() as u64;
                }
                self.tell(NodeEvent::LinkBytes {
                    link: LinkId(link.into()),
                    bytes: &bytes,
                });
            }
            LinkInput::Down { link, why } => {
                self.witness.down(link, &why);
                if let Some(gone) = self.links.remove(&link) {
                    self.paths[gone.path].error = why;
                }
                self.tell(NodeEvent::LinkDown {
                    link: LinkId(link.into()),
                });
            }
            LinkInput::DialFailed { path, why } if path == witness_link::PATH => {
                self.witness.failed(why)
            }
            LinkInput::DialFailed { path, why } => self.paths[path].error = why,
        }
    }

    /// Full-size frames were tried on a path; what is not as it should be is told once.
    pub(super) fn frames_found(&mut self, path: usize, found: Finding) {
        let before = self.paths[path].frames.replace(found);
        if before == Some(found) {
            return;
        }
        let ends = self.config.control_paths()[path];
        let what = format!("sync path {} - {}", ends.local, ends.remote);
        match facts::mtu(found) {
            Some((why, todo)) => {
                let text = format!("{what}: {why}; {todo}");
                self.events
                    .add(Level::Degraded, "link", &self.config.node_name(), &text);
            }
            None if before.is_some() => {
                let text = format!("{what}: full-size frames pass ({} bytes)", found.ours);
                self.events
                    .add(Level::Ok, "link", &self.config.node_name(), &text);
            }
            None => {}
        }
    }
}
