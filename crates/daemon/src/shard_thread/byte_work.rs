//! Work on the bytes of buffers: CRCs, hashes, comparisons, filling. Long work is done in steps,
//! one a turn, so that nobody waits for it longer than about 20 µs.

use crate::crc;
use lockstep_engine::interface::IoKey;
use lockstep_mirror::volume_io::{Io, Value};
use lockstep_uring::Arena;
use std::collections::VecDeque;

/// What one turn may cost, in bytes of the cheapest work (a CRC runs at some 25 GB/s).
const TURN_COST: u32 = 256 << 10;
/// BLAKE3 costs so many times what a CRC does.
const HASH_COST: u32 = 4;
/// The length of one hash of a piece.
const HASH_LEN: usize = 16;

/// Work in progress, in the order of its arrival.
#[derive(Default)]
pub(super) struct ByteWork {
    jobs: VecDeque<Job>,
    spent: u32,
}

struct Job {
    key: IoKey,
    io: Io,
    done: u32,
    crc: u32,
    hashes: Vec<u8>,
}

impl ByteWork {
    /// Takes a job. It may be done at once, or over some turns.
    pub(super) fn start(
        &mut self,
        arena: &mut Arena,
        key: IoKey,
        io: Io,
        done: &mut Vec<(IoKey, Value)>,
    ) {
        self.jobs.push_back(Job {
            key,
            io,
            done: 0,
            crc: 0,
            hashes: Vec::new(),
        });
        self.work(arena, done);
    }

    /// A new turn: goes on with what is left. True if there is more for the next one.
    pub(super) fn turn(&mut self, arena: &mut Arena, done: &mut Vec<(IoKey, Value)>) {
        self.spent = 0;
        self.work(arena, done);
    }

    /// Whether jobs wait for the next turn.
    pub(super) fn is_waiting(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn work(&mut self, arena: &mut Arena, done: &mut Vec<(IoKey, Value)>) {
        while self.spent < TURN_COST
            && let Some(job) = self.jobs.front_mut()
        {
            let (cost, value) = job.step(arena, TURN_COST - self.spent);
            self.spent = self.spent.saturating_add(cost);
            if let Some(value) = value {
                done.push((job.key, value));
                self.jobs.pop_front();
            }
        }
    }
}

impl Job {
    /// Does at most about `budget` of work; says what it cost, and the result if there is one.
    fn step(&mut self, arena: &mut Arena, budget: u32) -> (u32, Option<Value>) {
        let from = self.done;
        match &mut self.io {
            Io::Crc { buffer, at, len } => {
                let count = budget.min(*len - from);
                self.crc = crc::append(self.crc, arena.bytes(buffer.slot, *at + from, count));
                self.done += count;
                (count, (self.done == *len).then_some(Value::Crc(self.crc)))
            }
            Io::Hash {
                buffer,
                at,
                len,
                piece,
            } => {
                let count = (*piece).min(*len - from);
                let hash = blake3::hash(arena.bytes(buffer.slot, *at + from, count));
                self.hashes.extend_from_slice(&hash.as_bytes()[..HASH_LEN]);
                self.done += count;
                let all = self.done == *len;
                let value =
                    all.then(|| Value::Hashes(std::mem::take(&mut self.hashes).into_boxed_slice()));
                (count.saturating_mul(HASH_COST).max(1), value)
            }
            Io::Compare {
                left,
                left_at,
                right,
                right_at,
                len,
            } => {
                let count = budget.min(*len - from);
                let left = arena.bytes(left.slot, *left_at + from, count);
                let right = arena.bytes(right.slot, *right_at + from, count);
                if let Some(offset) = first_difference(left, right) {
                    return (count, Some(Value::Difference(Some(from + offset))));
                }
                self.done += count;
                (
                    count,
                    (self.done == *len).then_some(Value::Difference(None)),
                )
            }
            Io::Fill {
                buffer,
                at,
                pattern,
                len,
            } => {
                // What is filled doubles with each copy: the pattern repeats in it.
                let ready = from.max((*pattern).min(*len));
                let count = ready
                    .min(*len - ready)
                    .min(budget.next_multiple_of(*pattern));
                arena.copy((buffer.slot, *at), (buffer.slot, *at + ready), count);
                self.done = ready + count;
                (count.max(1), (self.done == *len).then_some(Value::Done))
            }
            Io::Put { buffer, at, bytes } => {
                let len = u32::try_from(bytes.len()).expect("fits a buffer");
                arena
                    .bytes_mut(buffer.slot, *at, len)
                    .copy_from_slice(bytes);
                (len, Some(Value::Done))
            }
            _ => unreachable!("only work on buffers comes here"),
        }
    }
}

fn first_difference(left: &[u8], right: &[u8]) -> Option<u32> {
    if left == right {
        return None;
    }
    let offset = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right)?;
    Some(u32::try_from(offset).expect("inside a buffer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_mirror::operation::BufferId;
    use lockstep_uring::SlotClass;

    const LEN: u32 = 1 << 20;

    fn buffer(slot: u32) -> BufferId {
        BufferId {
            slot,
            generation: 1,
        }
    }

    /// Runs a job to its end; the result, and how many turns it took.
    fn run(arena: &mut Arena, io: Io) -> (Value, u32) {
        let (mut work, mut done, mut turns) = (ByteWork::default(), Vec::new(), 1);
        let key = IoKey { volume: 0, id: 5 };
        work.start(arena, key, io, &mut done);
        while work.is_waiting() {
            work.turn(arena, &mut done);
            turns += 1;
            assert!(turns < 1000, "work that never ends");
        }
        let (ended, value) = done.pop().unwrap();
        assert_eq!((ended, done.len()), (key, 0));
        (value, turns)
    }

    fn arena() -> Arena {
        let mut arena = Arena::new(&[SlotClass {
            slots: 2,
            slot_bytes: LEN,
        }])
        .unwrap();
        for slot in 0..2 {
            for (n, byte) in arena.bytes_mut(slot, 0, LEN).iter_mut().enumerate() {
                *byte = u8::try_from(n % 253).unwrap();
            }
        }
        arena
    }

    #[test]
    fn long_work_takes_turns_and_comes_to_the_same_result() {
        let mut arena = arena();
        let whole = crc32c::crc32c(arena.bytes(0, 8, LEN - 8));
        let (crc, turns) = run(
            &mut arena,
            Io::Crc {
                buffer: buffer(0),
                at: 8,
                len: LEN - 8,
            },
        );
        assert!(crc == Value::Crc(whole) && turns > 2);
        let (crc, turns) = run(
            &mut arena,
            Io::Crc {
                buffer: buffer(0),
                at: 0,
                len: 4096,
            },
        );
        assert!(crc == Value::Crc(crc32c::crc32c(arena.bytes(0, 0, 4096))) && turns == 1);
    }

    #[test]
    fn the_first_difference_is_found_wherever_it_is() {
        let mut arena = arena();
        let compare = |len| Io::Compare {
            left: buffer(0),
            left_at: 0,
            right: buffer(1),
            right_at: 0,
            len,
        };
        assert_eq!(run(&mut arena, compare(LEN)).0, Value::Difference(None));
        for place in [LEN - 1, 700_001, 0] {
            arena.bytes_mut(1, place, 1)[0] ^= 1;
            assert_eq!(
                run(&mut arena, compare(LEN)).0,
                Value::Difference(Some(place))
            );
        }
    }

    #[test]
    fn a_pattern_fills_lengths_that_it_does_not_divide() {
        for (pattern, len) in [
            (512, LEN),
            (4096, 4096),
            (4096, 4097),
            (512, 1000),
            (24, 100_000),
        ] {
            let mut arena = arena();
            let (value, _) = run(
                &mut arena,
                Io::Fill {
                    buffer: buffer(0),
                    at: 16,
                    pattern,
                    len: len.min(LEN - 16),
                },
            );
            assert_eq!(value, Value::Done);
            let bytes = arena.bytes(0, 16, len.min(LEN - 16));
            let (first, rest) = bytes.split_at(pattern as usize);
            assert!(
                rest.iter()
                    .zip(first.iter().cycle())
                    .all(|(byte, wanted)| byte == wanted),
                "{pattern} {len}"
            );
        }
    }

    #[test]
    fn hashes_are_of_pieces_and_the_last_may_be_short() {
        let mut arena = arena();
        let (value, turns) = run(
            &mut arena,
            Io::Hash {
                buffer: buffer(0),
                at: 0,
                len: 150_000,
                piece: 65536,
            },
        );
        let Value::Hashes(hashes) = value else {
            panic!("hashes")
        };
        assert!(hashes.len() == 3 * HASH_LEN && turns > 1);
        assert_eq!(
            hashes[32..],
            blake3::hash(arena.bytes(0, 131_072, 18_928)).as_bytes()[..16]
        );
    }

    #[test]
    fn bytes_are_put_where_they_belong() {
        let mut arena = arena();
        run(
            &mut arena,
            Io::Put {
                buffer: buffer(1),
                at: 100,
                bytes: Box::from(*b"list"),
            },
        );
        assert_eq!(arena.bytes(1, 99, 6), [99, b'l', b'i', b's', b't', 104]);
    }
}
