//! Which values each block may hold: the last acknowledged write, those whose end is unknown,
//! and for a read in progress also what was replaced while it was under way. Every block is a
//! register; a read that finishes fixes its value for all reads that begin later.

use super::stamp::{Content, Stamp};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A moment in the order of the ledger's events, from [`Ledger::begin_read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// What one block may hold.
#[derive(Clone, Debug)]
struct Block {
    current: Content,
    /// Writes under way, and writes whose end is unknown.
    open: Vec<Content>,
    /// What was `current` before, and until when.
    past: Vec<(Content, Moment)>,
}

/// A block that holds what it may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {lba} holds {found}, but must hold {expected}{}", Possible(.possible))]
pub struct Wrong {
    /// Which block.
    pub lba: u64,
    /// What was read.
    pub found: Content,
    /// The last acknowledged value.
    pub expected: Content,
    /// Other values it might have had.
    pub possible: Vec<Content>,
}

struct Possible<'a>(&'a Vec<Content>);

impl core::fmt::Display for Possible<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0
            .iter()
            .try_for_each(|content| write!(f, " or {content}"))
    }
}

/// See the module. Blocks that nobody wrote must be zero.
#[derive(Debug, Default)]
pub struct Ledger {
    blocks: BTreeMap<u64, Block>,
    now: u64,
    /// Reads under way by the moment at which they began.
    reads: BTreeMap<Moment, usize>,
    acknowledged: u64,
    last_sequence: u64,
}

impl Ledger {
    /// A write of one block goes out; zeroes too are written.
    pub fn begin_write(&mut self, lba: u64, content: Content) {
        self.now += 1;
        if let Content::Stamped(stamp) = content {
            self.last_sequence = self.last_sequence.max(stamp.sequence);
        }
        self.block(lba).open.push(content);
    }

    /// It was acknowledged: nothing older may be seen by any read that begins from now on.
    ///
    /// # Panics
    /// If it had not begun.
    pub fn acknowledge(&mut self, lba: u64, content: Content) {
        self.now += 1;
        self.acknowledged += 1;
        let (now, oldest) = (Moment(self.now), self.oldest_read());
        let block = self.block(lba);
        let begun = block.open.contains(&content) || block.current == content;
        assert!(
            begun,
            "{content} in block {lba} was acknowledged but never begun"
        );
        // A write that was given up earlier can't take effect after one that came later.
        block.open.clear();
        block.replace(content, now, oldest);
    }

    /// A read goes out; its result is given to [`Self::check`] and then [`Self::end_read`].
    pub fn begin_read(&mut self) -> Moment {
        let moment = Moment(self.now);
        *self.reads.entry(moment).or_default() += 1;
        moment
    }

    /// One block of a read that began at `since`.
    ///
    /// # Errors
    /// The block holds what it may not.
    pub fn check(&mut self, since: Moment, lba: u64, block: &[u8]) -> Result<(), Wrong> {
        let found = Stamp::read(block);
        self.now += 1;
        let (now, oldest) = (Moment(self.now), self.oldest_read());
        let Some(entry) = self.blocks.get_mut(&lba) else {
            let untouched = Wrong {
                lba,
                found,
                expected: Content::Zero,
                possible: Vec::new(),
            };
            return if found == Content::Zero {
                Ok(())
            } else {
                Err(untouched)
            };
        };
        if entry.current == found
            || entry
                .past
                .iter()
                .any(|(value, until)| *value == found && *until > since)
        {
            return Ok(());
        }
        if entry.open.contains(&found) {
            entry.replace(found, now, oldest);
            return Ok(());
        }
        Err(Wrong {
            lba,
            found,
            expected: entry.current,
            possible: entry.open.clone(),
        })
    }

    /// The read is over, or failed.
    ///
    /// # Panics
    /// If no read began at `since`.
    pub fn end_read(&mut self, since: Moment) {
        let count = self
            .reads
            .get_mut(&since)
            .expect("a read that ends has begun");
        *count -= 1;
        if *count == 0 {
            self.reads.remove(&since);
        }
    }

    /// Every block that was ever written, in order.
    pub fn written(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.keys().copied()
    }

    /// How many block writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The highest sequence of any write; the next writer begins behind it.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// How many block writes are open or of unknown end.
    pub fn unknown(&self) -> usize {
        self.blocks.values().map(|block| block.open.len()).sum()
    }

    fn block(&mut self, lba: u64) -> &mut Block {
        self.blocks.entry(lba).or_insert_with(|| Block {
            current: Content::Zero,
            open: Vec::new(),
            past: Vec::new(),
        })
    }

    fn oldest_read(&self) -> Option<Moment> {
        self.reads.keys().next().copied()
    }
}

impl Block {
    fn replace(&mut self, value: Content, now: Moment, oldest_read: Option<Moment>) {
        self.past
            .retain(|(_, until)| oldest_read.is_some_and(|oldest| *until > oldest));
        if self.current != value {
            let former = core::mem::replace(&mut self.current, value);
            if oldest_read.is_some() {
                self.past.push((former, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stamp::BLOCK;
    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp {
            volume: 1,
            lba: 7,
            sequence,
            path: 0,
        }
    }

    fn content(sequence: u64) -> Content {
        Content::Stamped(stamp(sequence))
    }

    fn bytes(sequence: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        if sequence > 0 {
            stamp(sequence).write(&mut block);
        }
        block
    }

    fn reads(ledger: &mut Ledger, sequence: u64) -> bool {
        let since = ledger.begin_read();
        let right = ledger.check(since, 7, &bytes(sequence)).is_ok();
        ledger.end_read(since);
        right
    }

    fn written(ledger: &mut Ledger, sequence: u64) {
        ledger.begin_write(7, content(sequence));
        ledger.acknowledge(7, content(sequence));
    }

    #[test]
    fn an_acknowledged_write_must_be_there() {
        let mut ledger = Ledger::default();
        assert!(reads(&mut ledger, 0));
        written(&mut ledger, 1);
        assert!(!reads(&mut ledger, 0));
        assert!(reads(&mut ledger, 1));
        assert_eq!(ledger.acknowledged(), 1);
    }

    #[test]
    fn reads_never_go_backwards() {
        let mut ledger = Ledger::default();
        written(&mut ledger, 1);
        ledger.begin_write(7, content(2));
        assert!(reads(&mut ledger, 1));
        assert!(reads(&mut ledger, 2));
        assert!(!reads(&mut ledger, 1), "the new value was seen already");
        ledger.acknowledge(7, content(2));
        assert!(reads(&mut ledger, 2));
    }

    #[test]
    fn a_read_beside_a_write_may_see_either_value() {
        let mut ledger = Ledger::default();
        written(&mut ledger, 1);
        let (early, late) = (ledger.begin_read(), ledger.begin_read());
        written(&mut ledger, 2);
        assert!(ledger.check(early, 7, &bytes(1)).is_ok());
        assert!(ledger.check(late, 7, &bytes(2)).is_ok());
        assert!(ledger.check(late, 7, &bytes(0)).is_err());
        ledger.end_read(early);
        ledger.end_read(late);
        assert!(!reads(&mut ledger, 1));
    }

    #[test]
    fn looking_at_a_block_does_not_make_it_a_written_one() {
        let mut ledger = Ledger::default();
        assert!(reads(&mut ledger, 0));
        assert!(!reads(&mut ledger, 1));
        assert_eq!(ledger.written().count(), 0);
    }

    #[test]
    fn zeroes_are_a_value_like_any_other() {
        let mut ledger = Ledger::default();
        written(&mut ledger, 1);
        ledger.begin_write(7, Content::Zero);
        assert!(reads(&mut ledger, 1));
        ledger.acknowledge(7, Content::Zero);
        assert!(!reads(&mut ledger, 1));
        assert!(reads(&mut ledger, 0));
    }

    #[test]
    fn a_ghost_of_a_write_given_up_is_wrong_after_the_next_acknowledgement() {
        let mut ledger = Ledger::default();
        ledger.begin_write(7, content(1));
        written(&mut ledger, 2);
        assert!(!reads(&mut ledger, 1));
    }
}
