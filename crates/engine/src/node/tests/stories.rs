//! What two nodes live through.

mod forced;
mod joins;
mod leaving;
mod maintenance;
mod partitions;
mod refusals;
mod starts;
mod without_copy;
