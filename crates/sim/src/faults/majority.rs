//! What goes wrong only where there is a witness: the witness itself, its links, the nodes cut off
//! from each other, and a change of the strategy.

use super::{Fault, Situation};
use crate::prng::Prng;
use core::time::Duration;

/// Sorts of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The nodes are cut off from each other.
    Part,
    /// They are, often and for moments.
    PartFlap,
    /// They are, and one of them is cut off from the witness at about the same time.
    Triangle,
    /// The witness is killed or loses its power.
    Down,
    /// It is gone when a node fails.
    DownWithNode,
    /// It stands still.
    Pause,
    /// A node is cut off from it.
    Cut,
    /// In one direction.
    OneWay,
    /// It loses its disk.
    Wipe,
    /// Its disk is full.
    Full,
    /// The strategy is changed, and changed back.
    Strategy,
}

/// All of them.
pub(super) const KINDS: [Kind; 11] = [
    Kind::Part,
    Kind::PartFlap,
    Kind::Triangle,
    Kind::Down,
    Kind::DownWithNode,
    Kind::Pause,
    Kind::Cut,
    Kind::OneWay,
    Kind::Wipe,
    Kind::Full,
    Kind::Strategy,
];

const SOON: Duration = Duration::ZERO;

impl Kind {
    /// What happens now and what after which time. `node`: one of them; `long`: for how long.
    pub(super) fn faults(
        self,
        prng: &mut Prng,
        now: &Situation,
        node: usize,
        long: Duration,
    ) -> Vec<(Duration, Fault)> {
        let may_part = now.majority && !now.parted && now.isolated.is_none();
        let down = if prng.chance(500) {
            Fault::KillWitness
        } else {
            Fault::PowerCutWitness
        };
        let node_down = if now.power_cut_allowed && prng.chance(500) {
            Fault::PowerCut(node)
        } else {
            Fault::Kill(node)
        };
        match self {
            Self::Part if may_part => part(prng, now, node, long),
            Self::PartFlap if may_part => {
                let mut at = SOON;
                let mut faults = Vec::new();
                for _ in 0..prng.between(2, 6) {
                    faults.push((at, Fault::Part(prng.index(3), 0)));
                    at += prng.millis(1, 3000);
                    faults.push((at, Fault::Reunite));
                    at += prng.millis(1, 1500);
                }
                faults
            }
            Self::Triangle if may_part => {
                let parted = prng.millis(0, 2500);
                let cut = prng.millis(0, 2500);
                let mut faults = vec![
                    (parted, Fault::Part(prng.index(3), 0)),
                    (parted + long, Fault::Reunite),
                ];
                faults.extend(cut_witness(node, cut, cut + prng.millis(100, 8000)));
                if prng.chance(300) {
                    let other = prng.millis(0, 6000);
                    faults.extend(cut_witness(1 - node, other, other + prng.millis(100, 6000)));
                }
                if prng.chance(300) {
                    faults.extend([(parted, node_down), (parted + long, Fault::Start(node))]);
                }
                faults
            }
            Self::Down if now.witness => vec![(SOON, down), (long, Fault::StartWitness)],
            Self::DownWithNode if now.witness && now.running[node] => vec![
                (prng.millis(0, 3000), down),
                (prng.millis(0, 3000), node_down),
                (prng.millis(100, 9000), Fault::StartWitness),
                (prng.millis(100, 9000), Fault::Start(node)),
            ],
            Self::Pause if now.witness => vec![(SOON, Fault::PauseWitness(prng.between(10, 9000)))],
            Self::Cut => cut_witness(node, SOON, long).to_vec(),
            Self::OneWay => {
                let direction = prng.index(2);
                vec![
                    (SOON, Fault::CutWitness(node, direction)),
                    (long, Fault::MendWitness(node, direction)),
                ]
            }
            Self::Wipe if now.witness => {
                let lost = prng.millis(0, 3000);
                vec![
                    (SOON, down),
                    (lost, Fault::WipeWitness),
                    (lost + prng.millis(1, 6000), Fault::StartWitness),
                ]
            }
            Self::Full => vec![(SOON, Fault::FillWitness), (long, Fault::EmptyWitness)],
            Self::Strategy => {
                let mut faults = vec![(SOON, Fault::Strategy(node, false))];
                if prng.chance(800) {
                    let back = prng.millis(500, 9000);
                    faults.push((back, Fault::Strategy(prng.index(2), true)));
                    // One that was thrown while a node was away is refused.
                    let again = back + prng.millis(3000, 6000);
                    faults.push((again, Fault::Strategy(prng.index(2), true)));
                }
                faults
            }
            _ => Vec::new(),
        }
    }
}

/// The nodes cut off from each other for a while; sometimes for so long that initiators must have
/// been served meanwhile, by a node that alone reaches the witness or by either.
fn part(prng: &mut Prng, now: &Situation, node: usize, long: Duration) -> Vec<(Duration, Fault)> {
    if now.parted_long || prng.chance(400) {
        let direction = if prng.chance(500) { 0 } else { prng.index(3) };
        return vec![(SOON, Fault::Part(direction, 0)), (long, Fault::Reunite)];
    }
    let ms = prng.between(34_000, 42_000);
    let end = Duration::from_millis(ms);
    let mut faults = Vec::new();
    if prng.chance(600) {
        faults.extend(cut_witness(node, SOON, end));
    }
    faults.extend([(SOON, Fault::Part(0, ms)), (end, Fault::Reunite)]);
    faults
}

fn cut_witness(node: usize, from: Duration, until: Duration) -> [(Duration, Fault); 4] {
    [
        (from, Fault::CutWitness(node, 0)),
        (from, Fault::CutWitness(node, 1)),
        (until, Fault::MendWitness(node, 0)),
        (until, Fault::MendWitness(node, 1)),
    ]
}
