//! The wires between the two machines, and the control links over them.

use super::super::path::Mode;
use super::{Later, World, ms};
use crate::node_interface::LinkId;
use alloc::vec::Vec;
use lockstep_mirror::control::{FromVolume, Time};

impl World {
    pub(in crate::node::tests) fn heal(&mut self, wire: usize) {
        self.say(alloc::format!("wire {wire} HEAL"));
        if !self.wires[wire] {
            self.wires[wire] = true;
            self.drop_link(wire);
        }
    }

    pub(super) fn drop_link(&mut self, wire: usize) {
        let olds = self.old.extract_if(.., |_, it| it.0 == wire);
        let mut gone: Vec<LinkId> = olds.map(|(link, _)| link).collect();
        if let Some((link, _)) = self.links[wire].take() {
            self.dial_at[wire] = self.now + ms(500);
            gone.push(link);
        }
        for link in gone {
            self.down(link);
        }
    }

    pub(super) fn down(&mut self, link: LinkId) {
        for who in 0..2 {
            self.later(who, ms(1), Later::LinkDown { link });
        }
    }

    /// The first node dials; a connection over a wire that was cut is dead.
    pub(super) fn renew_link(&mut self, who: usize, wire: usize) {
        if !self.wires[wire] {
            return self.drop_link(wire);
        }
        if who == 0
            && let Some((link, last)) = self.links[wire].take()
        {
            self.old.insert(link, (wire, last));
            self.dial_at[wire] = self.now + ms(20);
        }
    }

    pub(super) fn close_link(&mut self, link: LinkId) {
        if self.old.remove(&link).is_some() {
            self.down(link);
        } else if let Some(wire) = self.wire_of(link) {
            self.drop_link(wire);
        }
    }

    pub(super) fn wire_work(&mut self) {
        let both = self.runs(0) && self.runs(1);
        for wire in 0..self.wires.len() {
            if self.wires[wire]
                && self.links[wire].is_none()
                && both
                && self.now >= self.dial_at[wire]
            {
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.links[wire] = Some((link, self.now));
                for who in 0..2 {
                    self.later(
                        who,
                        ms(2) + self.latency * 2,
                        Later::LinkUp {
                            link,
                            path: u16::try_from(wire).unwrap(),
                        },
                    );
                }
            }
        }
        let up = both && self.wires[0];
        for who in 0..2 {
            let path = &mut self.machines[who].path;
            if self.machines[who].node.is_some()
                && path.mode != Mode::Closed
                && path.channel != Some(up)
            {
                path.channel = Some(up);
                if up {
                    self.replay(who);
                }
                self.word(who, ms(5), FromVolume::Channel { up });
            }
        }
        if both && self.wires.iter().all(|it| !it) {
            let since = *self.apart_since.get_or_insert(self.now);
            // With a witness there is no excuse.
            self.apart |= self.now >= since + ms(1000) && self.referee.is_none();
        } else {
            self.apart_since = None;
        }
    }

    pub(super) fn wire_of(&self, link: LinkId) -> Option<usize> {
        self.links
            .iter()
            .position(|it| it.is_some_and(|(id, _)| id == link))
            .or_else(|| self.old.get(&link).map(|it| it.0))
    }

    /// When the last bytes on a link arrive.
    pub(super) fn last(&mut self, link: LinkId) -> Option<&mut Time> {
        let links = self.links.iter_mut().flatten();
        let mut current = links.filter(|(id, _)| *id == link).map(|(_, last)| last);
        current
            .next()
            .or_else(|| self.old.get_mut(&link).map(|it| &mut it.1))
    }
}
