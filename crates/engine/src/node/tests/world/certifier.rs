//! Somebody on a node's machine who certifies that its run has ended: the engine's own certifier
//! over connections of its own.

use super::*;
use crate::certificate::{Certificate, Certifier, Left};
use lockstep_mirror::hello::{Hello, Purpose, Side};

/// What the supervisor of a machine knows.
pub(in crate::node::tests) struct Supervisor {
    who: usize,
    certificate: Certificate,
}

/// A certificate on its way: the connection at the survivor, and the other end.
pub(in crate::node::tests) struct Connection {
    to: usize,
    certifier: Certifier,
    /// When its last bytes arrive: they stay in order.
    last: Time,
    /// Whatever the survivor sends reaches nobody: the certifier is gone, its words are not.
    pub(in crate::node::tests) answer: Option<bool>,
    /// What it sent last, for those who want to say it again.
    pub(in crate::node::tests) said: Vec<Vec<u8>>,
    pub(in crate::node::tests) refused: Option<String>,
}

impl World {
    /// Ends a run at once, as SIGKILL does, and gives what its supervisor can say about it: what
    /// is on the disk once nothing is in flight any more.
    pub(in crate::node::tests) fn kill(&mut self, who: usize) -> Supervisor {
        let run = self.machines[who].incarnation;
        self.crash(who);
        let found = {
            let slots = &self.machines[who].slots;
            Superblock::choose([&slots[0], &slots[1]])
        };
        let left = match found {
            Ok(Found::Valid { superblock, .. }) => vec![Left::of(&superblock)],
            _ => Vec::new(),
        };
        let machine = &self.machines[who];
        let certificate = Certificate {
            node: Self::id(who),
            partner: Self::id(1 - who),
            cluster: 7,
            secret: machine.secret.clone().into(),
            run: Incarnation(run),
            left,
        };
        Supervisor { who, certificate }
    }

    /// Sends a certificate to the other node, over a wire that works. Gives the connection.
    pub(in crate::node::tests) fn certify(&mut self, supervisor: &Supervisor) -> Option<LinkId> {
        let to = 1 - supervisor.who;
        let works = self.wires.iter().position(|it| *it);
        let wire = works.filter(|_| self.runs(to))?;
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&link.0.to_be_bytes());
        let (certifier, first) = Certifier::new(&supervisor.certificate, nonce);
        self.say(alloc::format!(
            "{} CERTIFIED, run {}",
            supervisor.who + 1,
            supervisor.certificate.run.0
        ));
        let connection = Connection {
            to,
            certifier,
            last: self.now + ms(3),
            answer: None,
            said: vec![first.clone()],
            refused: None,
        };
        self.certifiers.insert(link, connection);
        let path = u16::try_from(wire).unwrap();
        self.later(to, ms(2), Later::LinkUp { link, path });
        self.later(to, ms(3), Later::Bytes { link, bytes: first });
        Some(link)
    }

    /// What a node sends on a link, if that link leads to a certifier.
    pub(super) fn send_to_certifier(&mut self, link: LinkId, bytes: &[u8]) {
        let at = self.now + ms(self.dice(20) + 1);
        let connection = self.certifiers.get_mut(&link).expect("it was looked up");
        let to = connection.to;
        match connection.certifier.take(bytes) {
            Ok(reply) if !reply.is_empty() => {
                connection.said.push(reply.clone());
                connection.answer = connection.certifier.answer();
                connection.last = connection.last.max(at);
                let delay = connection.last.saturating_sub(self.now);
                let bytes = reply;
                self.later(to, delay, Later::Bytes { link, bytes });
            }
            Ok(_) => connection.answer = connection.certifier.answer(),
            Err(why) => connection.refused = Some(why),
        }
    }

    /// What a certifier said, once more on a connection of its own: the node's challenge there is
    /// another one.
    pub(in crate::node::tests) fn say_again(&mut self, link: LinkId) {
        let connection = &self.certifiers[&link];
        let (to, said) = (connection.to, connection.said.clone());
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.later(to, ms(2), Later::LinkUp { link, path: 0 });
        for (at, bytes) in (3..).zip(said) {
            self.later(to, ms(at), Later::Bytes { link, bytes });
        }
    }

    /// A connection on which a run that is gone proves itself: its bytes were long on their way.
    pub(in crate::node::tests) fn ghost(&mut self, who: usize, run: u64) {
        let me = Side {
            node: Self::id(who),
            incarnation: Incarnation(run),
            cluster: 7,
            purpose: Purpose::Control,
        };
        let secret = self.machines[who].secret.clone();
        let hello = Hello::new(me, Self::id(1 - who), &secret, [9; 32]);
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let bytes = hello.first().to_vec();
        self.ghosts.insert(link, hello);
        self.later(1 - who, ms(2), Later::LinkUp { link, path: 0 });
        self.later(1 - who, ms(3), Later::Bytes { link, bytes });
    }

    /// The ghost answers the challenge, and no more.
    pub(super) fn send_to_ghost(&mut self, to: usize, link: LinkId, bytes: &[u8]) {
        let Ok(first) = bytes.try_into() else { return };
        let hello = self.ghosts.get_mut(&link).expect("it was looked up");
        let bytes = hello
            .received(first)
            .expect("they know each other")
            .to_vec();
        self.later(to, ms(1), Later::Bytes { link, bytes });
    }

    /// The bytes of a supervisor's certificate, changed.
    pub(in crate::node::tests) fn amend(
        supervisor: &mut Supervisor,
        change: impl FnOnce(&mut Certificate),
    ) {
        change(&mut supervisor.certificate);
    }

    /// Certificates that a node acted on and refused.
    pub(in crate::node::tests) fn certificates(&self, who: usize) -> (u64, u64) {
        let status = self.machines[who]
            .node
            .as_ref()
            .unwrap()
            .status(self.clock(who));
        (status.certificates.taken, status.certificates.refused)
    }
}
