//! Two memberships at a small scope, and rules left out.

use super::*;
use crate::search::{Bounds, search};

#[test]
fn probe() {
    let base = Pair { calm: 16, ..Pair::default() };
    for model in [
        Pair { faults: 0, ..base },
        Pair { faults: 1, ticks: 16, ..base },
    ] {
        println!("{model:?}\n{}", search(&model, Bounds { time: Duration::from_secs(120), ..Bounds::default() }));
    }
}
