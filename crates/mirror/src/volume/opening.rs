//! Opening a volume: its intents and dirty bits are loaded, or a new area is written.

use super::stage::Stage;
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::FromVolume;
use crate::metadata_layout::{
    DIRTY_PAGE, INTENT_SECTOR, INTENTS_OFFSET, dirty_offset, events_offset, intent_sectors,
};
use crate::volume_io::{Io, IoError, Value};

/// Longest piece in which the metadata area is read.
const PIECE: u64 = 64 << 10;

pub(super) enum Opening {
    /// Reads what lies at this offset next.
    Loading { at: u64 },
    /// The intents of a new area are being written.
    Formatting,
    /// Then its dirty pages.
    FormattingDirty,
}

impl Volume {
    pub(super) fn open(&mut self, blank: bool, turn: &mut Turn<'_>) {
        assert!(matches!(self.stage, Stage::New), "a volume is opened once");
        if self.spec.partner.is_none() {
            self.stage = Stage::Idle;
            return turn.tell(FromVolume::Opened {
                dirty: 0,
                intents: 0,
            });
        }
        if blank {
            let (offset, bytes) = self.intents.format();
            self.stage = Stage::Opening(Opening::Formatting);
            self.start_io(
                Use::Opening,
                Io::WriteMeta {
                    offset,
                    bytes: bytes.into_boxed_slice(),
                },
                turn,
            );
        } else {
            self.load(INTENTS_OFFSET, turn);
        }
    }

    fn load(&mut self, at: u64, turn: &mut Turn<'_>) {
        let size = self.spec.size;
        let intents_end = INTENTS_OFFSET + intent_sectors(size) * INTENT_SECTOR;
        let at = if at >= intents_end {
            at.max(dirty_offset(size))
        } else {
            at
        };
        let end = if at < intents_end {
            intents_end
        } else {
            events_offset(size)
        };
        if at >= end {
            return self.opened(turn);
        }
        self.stage = Stage::Opening(Opening::Loading { at });
        let len = u32::try_from((end - at).min(PIECE)).expect("a piece is short");
        self.start_io(Use::Opening, Io::ReadMeta { offset: at, len }, turn);
    }

    pub(super) fn opening_done(&mut self, result: Result<Value, IoError>, turn: &mut Turn<'_>) {
        let Stage::Opening(opening) = &self.stage else {
            return;
        };
        match (opening, result) {
            (Opening::Loading { at }, Ok(Value::Bytes(bytes))) if !bytes.is_empty() => {
                let at = *at;
                let dirty = dirty_offset(self.spec.size);
                let parts = if at < dirty {
                    self.intents
                        .load((at - INTENTS_OFFSET) / INTENT_SECTOR, &bytes)
                } else {
                    self.dirty.load((at - dirty) / DIRTY_PAGE, &bytes)
                };
                if parts > 0 {
                    turn.tell(FromVolume::Damaged { parts });
                }
                self.load(at + bytes.len() as u64, turn);
            }
            (Opening::Formatting, Ok(_)) => {
                self.dirty.format();
                self.stage = Stage::Opening(Opening::FormattingDirty);
            }
            _ => self.fail(turn),
        }
    }

    fn opened(&mut self, turn: &mut Turn<'_>) {
        self.stage = Stage::Idle;
        let intents = u32::try_from(self.intents.count()).unwrap_or(u32::MAX);
        turn.tell(FromVolume::Opened {
            dirty: self.dirty.bytes(),
            intents,
        });
    }

    pub(super) fn advance_opening(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.stage, Stage::Opening(Opening::FormattingDirty)) && self.dirty.quiet() {
            self.opened(turn);
        }
    }
}
