//! Counts in which states a volume was, and by which rows of the table two copies were compared: one
//! that no run reaches is a hole in the test.

use crate::context::Context;
use lockstep_engine::node_interface::{Standing, State};
use lockstep_mirror::decide::Row;
use lockstep_mirror::membership::Why;

/// In what state a run of the daemon last was.
#[derive(Debug, Default)]
pub(super) struct States {
    last: Option<State>,
}

const ROWS: [(Row, &str); 10] = [
    (Row::BothBlank, "row 1: both blank"),
    (Row::SplitBrain, "row 2: split brain"),
    (Row::Resolved, "row 2: split brain, resolved"),
    (Row::OneWrote, "row 3: two lines, at most one wrote"),
    (Row::NobodyEligible, "row 4: nobody eligible"),
    (Row::NoRestart, "row 5: no restart"),
    (Row::SteppedDown, "row 6: one stepped down"),
    (Row::OneCrashed, "row 6: one crashed"),
    (Row::BothRestarted, "row 6: both restarted"),
    (Row::OneEligible, "row 7: one eligible"),
];

impl States {
    /// Counts what is new.
    pub(super) fn note(&mut self, ctx: &mut Context, state: State) {
        let last = self.last.replace(state);
        if last == Some(state) {
            return;
        }
        let rows = last.map(|it| it.rows).unwrap_or_default();
        for (row, name) in ROWS {
            if state.rows.has(row) && !rows.has(row) {
                ctx.count(name);
            }
        }
        let before = last.map(|it| (it.standing, it.why));
        if before != Some((state.standing, state.why)) {
            ctx.count(name(state));
        }
    }
}

const fn name(state: State) -> &'static str {
    match (state.standing, state.why) {
        (Standing::Waiting, Some(why)) => reason(why),
        (Standing::Waiting, None) => "state: waits",
        (Standing::Mirrored, _) => "state: mirrored",
        (Standing::Alone, _) => "state: alone",
        (Standing::Source, _) => "state: source",
        (Standing::Target, _) => "state: target",
    }
}

const fn reason(why: Why) -> &'static str {
    match why {
        Why::Opening => "state: waits, opening",
        Why::Starting => "state: waits, starting",
        Why::Meeting => "state: waits, meeting",
        Why::NeedsPartner => "state: waits, needs its partner",
        Why::Outdated => "state: waits, outdated",
        Why::OpenJoin => "state: waits, open join",
        Why::LostVotes => "state: waits, lost votes",
        Why::Lazy => "state: waits, lazy",
        Why::NeedsQuorum => "state: waits, needs a quorum",
        Why::NeedsWrites => "state: waits, needs writes",
        Why::Deciding => "state: waits, deciding",
        Why::AwaitingSource => "state: waits, awaits its source",
        Why::NeedsCopyOf(_) => "state: waits, needs another copy",
        Why::NeedsCreation => "state: waits, needs creation",
        Why::Mismatch(_) => "state: waits, mismatch",
        Why::SplitBrain => "state: waits, split brain",
        Why::DiskFailed => "state: waits, disk failed",
        Why::Refused => "state: waits, refused",
        Why::Stopping => "state: waits, stopping",
        Why::Maintenance => "state: waits, maintenance",
    }
}
