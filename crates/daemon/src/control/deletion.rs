//! Deleting a volume: not under an initiator that is logged in, through either node. The partner
//! is asked; if it is not reached, this node can only say so.

use super::Control;
use super::answers::refusal;
use crate::admin::{Asked, Class, Refusal, Request};
use crate::pool::{Pool, PoolError};
use crate::shard_thread::boot_time;
use lockstep_api::status::Session;
use lockstep_engine::interface::ToShard;
use lockstep_engine::node_interface::{Initiators, LinkId, NodeEvent};
use lockstep_mirror::control::VolumeId;
use std::time::{Duration, Instant};

/// The partner answers within milliseconds; an operator can repeat.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Questions of the partner that wait for the shard's list of sessions: it asks on each of at most
/// 8 links, for one deletion at a time.
const QUESTIONS_MAX: usize = 16;

/// A deletion that waits for the partner's word.
#[derive(Debug)]
pub(super) struct Deletion {
    asked: Asked,
    number: u64,
    due: Instant,
    /// Who is logged in there, once it said so.
    found: Option<Initiators>,
}

/// What the partner wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    link: LinkId,
    number: u64,
    volume: VolumeId,
}

impl Control {
    /// A deletion, with the list of sessions fresh: refused, put off, or begun.
    pub(super) fn delete(&mut self, asked: Asked) {
        let Request::Delete { name, confirm } = &asked.request else {
            unreachable!("only deletions come here")
        };
        if self.change.is_some() || self.deletion.is_some() {
            return self.wait_for_change(asked);
        }
        if let Err(refusal) = self.may_delete(name, confirm) {
            // Whoever asked may have gone.
            return drop(asked.reply.send(Err(refusal)));
        }
        let other = 3 - self.config.node.number;
        let volume = self.pool.volume(name).expect("it may be deleted");
        let there = volume.replica(other).is_some();
        if !(there && self.node.status(boot_time()).partner_alive) {
            return self.delete_now(asked);
        }
        let volume = VolumeId(volume.uuid.0);
        self.questions += 1;
        let number = self.questions;
        self.deletion = Some(Deletion {
            asked,
            number,
            due: Instant::now() + ANSWER_LIMIT,
            found: None,
        });
        self.tell(NodeEvent::AskInitiators { number, volume });
    }

    /// The partner's answer.
    pub(super) fn partner_said(&mut self, number: u64, found: Initiators) {
        if let Some(deletion) = &mut self.deletion
            && deletion.number == number
        {
            deletion.found = Some(found);
        }
    }

    /// Goes on with a deletion that the partner has answered, or that it leaves waiting.
    pub(super) fn settle_deletion(&mut self) {
        let ripe = |deletion: &Deletion| deletion.found.is_some() || Instant::now() >= deletion.due;
        let Some(deletion) = self.deletion.take_if(|deletion| ripe(deletion)) else {
            return;
        };
        let what = change_of(&deletion.asked);
        let refused = match deletion.found {
            Some(found) if found.count == 0 => return self.delete_now(deletion.asked),
            Some(found) => in_use(what, &self.partner_name(), found.count, &found.first),
            None => Refusal::new(
                Class::Unavailable,
                what,
                format!(
                    "{} did not say in time whether initiators are logged in there",
                    self.partner_name()
                ),
                "repeat it; lockstep status says how the nodes reach each other",
            ),
        };
        drop(deletion.asked.reply.send(Err(refused)));
        self.next_change();
    }

    fn delete_now(&mut self, asked: Asked) {
        let Request::Delete { name, confirm } = &asked.request else {
            unreachable!("only deletions come here")
        };
        if self.change.is_some() {
            return self.wait_for_change(asked);
        }
        // Looked at again: the partner may have taken its time.
        match self.may_delete(name, confirm) {
            Ok(next) => {
                let what = format!("volume {name} deleted");
                self.propose(&next, what, asked.request, asked.reply);
            }
            Err(refusal) => {
                drop(asked.reply.send(Err(refusal)));
                self.next_change();
            }
        }
    }

    /// The pool without the volume, as far as this node can tell.
    fn may_delete(&self, name: &str, confirm: &str) -> Result<Pool, Refusal> {
        let what = format!("volume {name}");
        let next = self
            .pool
            .without_volume(name)
            .map_err(|error: PoolError| refusal(&what, error))?;
        if confirm != name {
            return Err(Refusal::new(
                Class::Bad,
                what,
                "its name was not repeated",
                format!("if it is meant: lockstep volume delete {name} --confirm {name}"),
            ));
        }
        let here = self.initiators_of(|session| session.volume == name);
        if here.count > 0 {
            return Err(in_use(
                what,
                &self.config.node_name(),
                here.count,
                &here.first,
            ));
        }
        Ok(next)
    }

    fn initiators_of(&self, wanted: impl Fn(&Session) -> bool) -> Initiators {
        let sessions = self.sessions_view();
        let mut found = sessions.iter().filter(|session| wanted(session));
        let first = found.next().map(|session| session.initiator.clone());
        let others = u32::try_from(found.count()).unwrap_or(u32::MAX - 1);
        Initiators {
            count: first.as_ref().map_or(0, |_| others + 1),
            first: first.unwrap_or_default(),
        }
    }

    /// The partner asks who is logged in here: answered when the shard has said it.
    pub(super) fn find_initiators(&mut self, link: LinkId, number: u64, volume: VolumeId) {
        if self.partner_questions.len() < QUESTIONS_MAX {
            self.partner_questions.push(Question {
                link,
                number,
                volume,
            });
            self.order(ToShard::Sessions);
        }
    }

    /// The list of sessions is fresh.
    pub(super) fn answer_partner(&mut self) {
        for question in std::mem::take(&mut self.partner_questions) {
            let volumes = &self.pool.volumes;
            let volume = volumes
                .iter()
                .find(|volume| volume.uuid.0 == question.volume.0);
            let name = volume.map(|volume| volume.name.clone());
            let found = self.initiators_of(|session| Some(&session.volume) == name.as_ref());
            self.tell(NodeEvent::InitiatorsFound {
                link: question.link,
                number: question.number,
                found,
            });
        }
    }

    /// The other node's name as people know it.
    pub(super) fn partner_name(&self) -> String {
        let number = 3 - self.config.node.number;
        let entered = self.pool.nodes.iter().find(|node| node.number == number);
        entered.map_or_else(|| format!("node {number}"), |node| node.name.clone())
    }
}

fn change_of(asked: &Asked) -> String {
    match &asked.request {
        Request::Delete { name, .. } => format!("volume {name}"),
        _ => unreachable!("only deletions wait for the partner's word"),
    }
}

fn in_use(what: String, node: &str, count: u32, first: &str) -> Refusal {
    let who = match count {
        1 => format!("an initiator is logged in through {node}: {first}"),
        _ => format!("{count} sessions are logged in through {node}, among them {first}"),
    };
    Refusal::new(Class::Conflict, what, who, "log out there first")
}
