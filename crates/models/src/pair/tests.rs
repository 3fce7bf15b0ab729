//! Two memberships at a small scope, and rules left out.

use super::*;
use crate::search::{Bounds, search};

#[test]
fn probe() {
    let base = Pair { calm: 0, ticks: 16, ..Pair::default() };
    let all = Rules::default();
    let b = Bounds { time: Duration::from_secs(60), ..Bounds::default() };
    for (name, rules) in [
        ("all", all),
        ("not_before", Rules { not_before: false, ..all }),
        ("may_accept", Rules { may_accept: false, ..all }),
        ("votes_bind", Rules { votes_bind: false, ..all }),
        ("answers_after_file", Rules { answers_after_file: false, ..all }),
        ("oversleeping", Rules { oversleeping: false, ..all }),
        ("voting_counts", Rules { voting_counts: false, ..all }),
    ] {
        for (n, model) in [
            ("majority", Pair { rules, ..base }),
            ("hasty", Pair { rules, timing: HASTY, ..base }),
            ("heartbeat", Pair { witness: false, kinds: Kinds::HEARTBEAT, rules, ..base }),
        ] {
            println!("{name} {n} {}", search(&model, b));
        }
    }
}
