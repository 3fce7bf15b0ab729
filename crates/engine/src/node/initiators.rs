//! Who is logged in at the partner: a volume that is to be deleted must not be torn from under an
//! initiator there. Both answers come from the drivers; `Node` carries question and answer.

use super::{Node, Turn};
use crate::node_interface::{Initiators, LinkId, NodeAction};
use lockstep_mirror::control::VolumeId;
use lockstep_mirror::control_frame::ControlFrame;

impl Node {
    /// The driver wants to know. On every link: any of them may fail at any moment, and a second
    /// answer does no harm.
    pub(super) fn ask_partner(&mut self, turn: &mut Turn<'_>, number: u64, volume: VolumeId) {
        self.send_all(turn, &ControlFrame::AskInitiators { number, volume });
    }

    /// The driver's answer to the partner. A link that is gone meanwhile needs none.
    pub(super) fn tell_initiators(
        &mut self,
        turn: &mut Turn<'_>,
        id: LinkId,
        number: u64,
        found: Initiators,
    ) {
        let answer = ControlFrame::Initiators {
            number,
            count: found.count,
            first: found.first,
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.send(id, &answer, turn);
        }
    }

    /// The partner asks, or answers.
    pub(super) fn initiators_in(turn: &mut Turn<'_>, id: LinkId, frame: ControlFrame) {
        match frame {
            ControlFrame::AskInitiators { number, volume } => {
                turn.out.push(NodeAction::FindInitiators {
                    link: id,
                    number,
                    volume,
                });
            }
            ControlFrame::Initiators {
                number,
                count,
                first,
            } => turn.out.push(NodeAction::PartnerInitiators {
                number,
                found: Initiators { count, first },
            }),
            _ => {}
        }
    }
}
