//! Stories of two nodes over a pretend network, with data paths that do what they are told at
//! once, and random schedules that check what may never happen.

extern crate std;

mod certificates;
mod chaos;
mod clocks;
mod cold;
mod config;
mod flaps;
mod majority;
mod operators;
mod path;
mod review;
mod rules;
mod stories;
mod world;

/// Runs a random schedule with seeds 1 to `default`, or with `SEEDS` of them from `SEED` on, and
/// names the first that fails.
fn for_seeds(default: u64, run: impl Fn(u64) + core::panic::RefUnwindSafe) {
    let from_env = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let first = from_env("SEED").unwrap_or(1);
    for seed in first..first + from_env("SEEDS").unwrap_or(default) {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            std::println!("SEED={seed}");
            panic!("seed {seed}");
        }
    }
}
