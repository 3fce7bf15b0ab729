//! Micro-benchmarks of what is done once a command or once a block: `cargo bench -p
//! lockstep-benches`. They show which way a change went; figures of the whole program are taken
//! on the whole program.
