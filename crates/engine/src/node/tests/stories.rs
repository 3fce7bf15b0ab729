//! What two nodes live through.

mod joins;
mod leaving;
mod partitions;
mod refusals;
mod starts;
