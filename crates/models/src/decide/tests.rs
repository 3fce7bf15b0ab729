//! `decide` as it is, and damaged ones.

use super::*;

const SMALL: Space = Space {
    all_flags: false,
    preferences: true,
};

#[test]
fn probe() {
    println!("{}", enumerate_real(SMALL));
}
