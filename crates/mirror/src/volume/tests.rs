//! Two volumes over pretend disks, metadata areas and channels: stories of a few lines, and
//! thousands of short random schedules with crashes, cuts, ejections, joins and hand-overs.

mod changes;
mod clocks;
mod machine;
mod manager;
mod mend;
mod proxied;
mod random;
mod resync;
mod review;
mod rules;
mod rules_resync;
mod stories;
mod striping;
mod world;
