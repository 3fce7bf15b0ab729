//! Sentences for the operator, few enough that nobody can flood a log.

use crate::interface::{Output, Time};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Arguments, Write as _};

/// Notes that may come at once.
const BURST: u32 = 4;
/// One more after each of these, seconds.
const REFILL: Time = Time::from_secs(10);

/// How many notes may still be written.
#[derive(Debug)]
pub(super) struct Notes {
    left: u32,
    since: Time,
    suppressed: u64,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            left: BURST,
            since: Time::ZERO,
            suppressed: 0,
        }
    }
}

impl Notes {
    /// Writes a note, or counts it.
    pub(super) fn add(&mut self, now: Time, sentence: Arguments<'_>, out: &mut Vec<Output>) {
        while self.left < BURST && now.saturating_sub(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        if self.left == BURST {
            self.since = now;
        }
        if self.left == 0 {
            self.suppressed += 1;
            return;
        }
        self.left -= 1;
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = write!(text, "{sentence}");
        if self.suppressed > 0 {
            let _ = write!(
                text,
                " ({} similar notes were left out before)",
                self.suppressed
            );
            self.suppressed = 0;
        }
        out.push(Output::Note { text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_four_lines() {
        let mut notes = Notes::default();
        let mut out = Vec::new();
        for i in 0..1000 {
            notes.add(Time::from_secs(1), format_args!("note {i}"), &mut out);
        }
        assert_eq!(out.len(), 4);
        notes.add(Time::from_secs(11), format_args!("later"), &mut out);
        let text = String::from("later (996 similar notes were left out before)");
        assert_eq!(out.pop(), Some(Output::Note { text }));
    }
}
