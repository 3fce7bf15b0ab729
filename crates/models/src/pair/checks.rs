//! What is promised, looked at after every step.

use super::*;
use lockstep_mirror::decide::{Copy, Plan, Record, decide};

impl World {
    /// Looks at everything; what is broken first is kept.
    pub(super) fn check(&mut self, model: &Pair) {
        if self.harm.is_none() {
            self.harm = self
                .apart(model)
                .or_else(|| self.stale(model))
                .or_else(|| self.unmarked())
                .or_else(|| self.if_they_met());
        }
    }

    /// Two nodes that answer under different configurations: one alone, the other alone too or
    /// still reading with a lease.
    fn apart(&self, model: &Pair) -> Option<String> {
        let answering = |who: usize| {
            let node = &self.nodes[who];
            let process = node.process.as_ref().filter(|_| !node.paused)?;
            process.path.reads(node.now, &model.rules)
        };
        // Without leases every read is a stale one; that is found by what is read.
        if !model.rules.leases {
            return None;
        }
        let (first, second) = (answering(0)?, answering(1)?);
        (first.lineage() != second.lineage())
            .then(|| format!("both nodes serve: {} and {}", short(&first), short(&second)))
    }

    /// Whoever reads must see what was answered and what somebody has read before.
    fn stale(&mut self, model: &Pair) -> Option<String> {
        for (node, who) in self.nodes.iter().zip(1..) {
            let Some(process) = node.process.as_ref().filter(|_| !node.paused) else {
                continue;
            };
            let Some(configuration) = process.path.reads(node.now, &model.rules) else {
                continue;
            };
            let lacks = (self.acknowledged | self.seen) & !node.disk.blocks;
            if lacks != 0 {
                return Some(format!(
                    "node {who} reads in {} and lacks write {}",
                    short(&configuration),
                    lacks.trailing_zeros() + 1
                ));
            }
            self.seen |= node.disk.blocks & !process.path.open;
        }
        None
    }

    /// Wherever the images differ, one of them has marked it.
    fn unmarked(&self) -> Option<String> {
        let [a, b] = [self.nodes[0].disk, self.nodes[1].disk];
        let marked = a.dirty | a.intents | b.dirty | b.intents;
        let lost = (a.blocks ^ b.blocks) & !marked;
        (lost != 0).then(|| {
            format!(
                "the images differ in block {}, and neither node has it marked",
                lost.trailing_zeros() + 1
            )
        })
    }

    /// If both nodes lost power now and met again: the source that `decide` names holds every
    /// write that was answered, and what it copies covers whatever differs.
    fn if_they_met(&self) -> Option<String> {
        let run = |it: u64| Incarnation(u64::MAX - it);
        let [first, second] = &self.nodes;
        let (a, b) = (first.superblock.as_ref()?, second.superblock.as_ref()?);
        let (mut a, mut b) = (Record::of(a, run(1)), Record::of(b, run(2)));
        (a.crashed, b.crashed) = (true, true);
        let votes = [first, second].map(|it| it.votes.vote(VOLUME));
        let register = votes
            .iter()
            .max_by_key(|it| it.ballot)
            .and_then(|it| it.value);
        let plan = decide(&a, &b, register);
        if plan != decide(&b, &a, register) {
            return Some(format!("after a power cut the nodes disagree: {plan:?}"));
        }
        let Plan::Source { node, copy } = plan else {
            return Some(format!("after a power cut the plan would be {plan:?}"));
        };
        let source = if node == node_id(0) { first } else { second };
        let lacks = (self.acknowledged | self.seen) & !source.disk.blocks;
        if lacks != 0 {
            return Some(format!(
                "after a power cut node {} would be the source, and it lacks write {}",
                node.0,
                lacks.trailing_zeros() + 1
            ));
        }
        (copy != Copy::Marked).then(|| String::from("after a power cut all would be compared"))
    }

    /// A node is told to serve.
    pub(super) fn check_serve(&mut self, who: usize, configuration: &Configuration) {
        let node = &self.nodes[who];
        let lacks = self.acknowledged & !node.disk.blocks;
        let fault = if lacks != 0 {
            Some("and lacks an acknowledged write")
        } else {
            match &node.superblock {
                None => Some("and has no superblock"),
                Some(it) if it.configuration != *configuration => {
                    Some("which is not in its superblock")
                }
                Some(it) if it.inconsistent => Some("and its copy is inconsistent"),
                Some(it) if it.split_brain => Some("and a split brain is on record"),
                Some(it) if configuration.unilateral && !it.wrote => {
                    Some("and `wrote` is not durable")
                }
                Some(it) if it.clean => Some("and its copy is marked clean"),
                Some(_) => None,
            }
        };
        if let Some(fault) = fault.filter(|_| self.harm.is_none()) {
            self.harm = Some(format!(
                "node {} begins to serve {} {fault}",
                who + 1,
                short(configuration)
            ));
        }
        let split = self.nodes[who].superblock.as_ref();
        if split.is_some_and(|it| it.split_brain) && self.harm.is_none() {
            self.harm = Some(String::from("a split brain is on record"));
        }
    }

    /// Both nodes in a few words.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for (node, who) in self.nodes.iter().zip(1..) {
            let durable = node.superblock.as_ref();
            let durable = durable.map_or_else(String::new, |it| {
                let open = it.prepared.as_ref().map(short);
                let open = open.map_or_else(String::new, |it| format!(", open {it}"));
                format!(
                    "{}{open}{}",
                    short(&it.configuration),
                    if it.inconsistent {
                        ", inconsistent"
                    } else {
                        ""
                    }
                )
            });
            let state = node.process.as_ref().map_or_else(
                || String::from("down"),
                |it| format!("{:?}", it.membership.status(node.now)),
            );
            text += &format!(
                "[node {who}: {durable}; blocks {:03b} dirty {:03b} intents {:03b}; {state}] ",
                node.disk.blocks, node.disk.dirty, node.disk.intents
            );
        }
        let acknowledged = self.acknowledged;
        text + &format!("acknowledged {acknowledged:03b} seen {:03b}", self.seen)
    }
}
