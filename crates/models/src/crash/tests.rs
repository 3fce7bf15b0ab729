//! The story with a crash at every step, and rules left out.

use super::*;

#[test]
fn probe() {
    println!("{}", enumerate(&Crash { crashes: 0, ..Crash::default() }));
    println!("{}", enumerate(&Crash { time: Duration::from_secs(60), ..Crash::default() }));
    let all = Rules::default();
    for rules in [
        Rules { metadata_durable: false, ..all },
        Rules { marks_loaded: false, ..all },
        Rules { join_waits: false, ..all },
    ] {
        println!("{rules:?} {}", enumerate(&Crash { rules, time: Duration::from_secs(60), ..Crash::default() }));
    }
}
