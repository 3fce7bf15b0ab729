//! The partner's heartbeat tokens of the last seconds: a forward carries the one that was the
//! newest when its command was received, however long its data took to come.

use super::DROP_AGE;
use crate::control::Time;
use alloc::collections::VecDeque;

/// Tokens closer together than this count as one; so there are never more than some hundred.
const APART: Time = Time::from_millis(50);
/// As long as an operation may wait, with room for clocks that run apart.
const KEPT: Time = Time::from_secs(5);

/// A token (the partner's boot time in microseconds when it sent the heartbeat), and when it came.
pub(super) type Token = (u64, Time);

#[derive(Default)]
pub(super) struct Tokens {
    held: VecDeque<Token>,
}

impl Tokens {
    /// One that overtook another changes nothing. One that is older by far is of a partner whose
    /// machine started again, and its clock with it.
    pub(super) fn came(&mut self, token: u64, received: Time) {
        if let Some((newest, at)) = self.held.back().copied() {
            if Time::from_micros(token) + DROP_AGE < Time::from_micros(newest) {
                self.held.clear();
            } else if token <= newest || received < at + APART {
                return;
            }
        }
        self.held.push_back((token, received));
        while self
            .held
            .get(1)
            .is_some_and(|(_, at)| *at + KEPT < received)
        {
            self.held.pop_front();
        }
    }

    /// The newest that was held at that time; without one, a token that has expired.
    pub(super) fn at(&self, time: Time) -> Token {
        let held = self.held.iter().rev().find(|(_, at)| *at <= time);
        held.copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn each_time_has_the_token_that_was_held_then() {
        let mut tokens = Tokens::default();
        assert_eq!(tokens.at(ms(100_000)).0, 0);
        for beat in 0..100 {
            tokens.came(9_000_000 + beat * 200_000, ms(100_000 + beat * 200));
        }
        assert_eq!(tokens.at(ms(119_900)).0, 9_000_000 + 99 * 200_000);
        assert_eq!(tokens.at(ms(117_500)).0, 9_000_000 + 87 * 200_000);
        assert_eq!(tokens.at(ms(99_999)).0, 0, "forgotten, so expired");
        assert!(tokens.held.len() < 30);
    }

    #[test]
    fn an_overtaken_token_is_dropped_and_a_restarted_clock_believed() {
        let mut tokens = Tokens::default();
        tokens.came(9_000_000, ms(1000));
        tokens.came(8_000_000, ms(1100));
        assert_eq!(tokens.at(ms(1200)).0, 9_000_000);
        tokens.came(1_000_000, ms(1300));
        assert_eq!(tokens.at(ms(1300)).0, 1_000_000);
        assert_eq!(
            tokens.at(ms(1200)).0,
            0,
            "what it said before means nothing now"
        );
    }

    #[test]
    fn the_table_is_bounded_however_often_it_is_told() {
        let mut tokens = Tokens::default();
        for beat in 0..20_000 {
            tokens.came(beat * 1000, ms(beat));
        }
        assert!(tokens.held.len() <= 102);
    }
}
