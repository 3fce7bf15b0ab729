//! Initiators that were accepted and not taken yet. A few a turn are, so that each is heard before
//! those behind it may put it out, and no address keeps the others waiting.

use lockstep_engine::interface::Origin;
use lockstep_uring::net;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// Newcomers that are taken in one turn: as many as are not put out before they were heard (a
/// quarter of the half-open connections, `admission.rs` of the iSCSI layer).
pub(super) const TAKEN_A_TURN: usize = 32;
/// Newcomers that wait for that; the kernel keeps as many.
const WAITING_MAX: usize = 1024;
/// Newcomers of one address among them. A host has a few sessions.
const OF_ADDRESS_MAX: u32 = 128;

/// See the module.
#[derive(Default)]
pub(super) struct Door {
    waiting: VecDeque<(OwnedFd, Origin, IpAddr)>,
    of_address: BTreeMap<IpAddr, u32>,
}

impl Door {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Somebody was accepted. False: it is gone already, or too many wait; then it is closed.
    pub(super) fn arrived(&mut self, socket: OwnedFd, origin: Origin) -> bool {
        let Ok(peer) = net::peer(&socket) else {
            return false;
        };
        let address = peer.ip();
        let count = self.of_address.get(&address).copied().unwrap_or(0);
        if self.waiting.len() >= WAITING_MAX || count >= OF_ADDRESS_MAX {
            return false;
        }
        self.of_address.insert(address, count + 1);
        self.waiting.push_back((socket, origin, address));
        true
    }

    /// Who has waited longest.
    pub(super) fn next(&mut self) -> Option<(OwnedFd, Origin)> {
        let (socket, origin, address) = self.waiting.pop_front()?;
        if let Some(count) = self.of_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&address);
            }
        }
        Some((socket, origin))
    }

    /// The portals are closed: nobody comes in any more.
    pub(super) fn turn_away(&mut self) {
        self.waiting.clear();
        self.of_address.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_address_that_crowds_the_door_does_not_keep_others_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let arrive = |door: &mut Door, from: IpAddr| {
            let client: TcpStream = net::stream_from(from).map(TcpStream::from).unwrap();
            rustix::net::connect(&client, &to).unwrap();
            let (socket, _) = listener.accept().unwrap();
            (client, door.arrived(socket.into(), Origin::Portal(0)))
        };
        let (crowd, other) = ("127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap());
        let mut door = Door::default();
        let mut clients = Vec::new();
        for number in 0..2 * OF_ADDRESS_MAX {
            let (client, let_in) = arrive(&mut door, crowd);
            assert_eq!(let_in, number < OF_ADDRESS_MAX, "{number}");
            clients.push(client);
        }
        assert!(arrive(&mut door, other).1);
        let waiting = door.len();
        assert!((0..waiting).all(|_| door.next().is_some()) && door.next().is_none());
        assert!(arrive(&mut door, crowd).1, "there is room again");
        door.turn_away();
        assert_eq!(door.len(), 0);
    }
}
