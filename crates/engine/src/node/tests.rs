//! Stories of two nodes over a pretend network, with data paths that do what they are told at
//! once, and random schedules that check what may never happen.

extern crate std;

mod chaos;
mod config;
mod flaps;
mod majority;
mod path;
mod review;
mod rules;
mod stories;
mod world;
