//! Real daemons on real networks and disks that are really broken, while a checker watches.
//!
//! Two nodes and a witness run in network namespaces of their own, on disks ([`disk`]) that keep
//! aside what is not flushed and lose or tear it when their power is cut. Initiators use both paths
//! and record what they did and saw ([`history`]); a nemesis ([`nemesis`]) kills,
//! pauses, parts and cuts. What was recorded must be what one disk could have answered, and be in both images.
//!
//! Needs root: namespaces, virtual cables and FUSE.

pub mod client;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod nemesis;
pub mod network;
pub mod pauses;
pub mod powercuts;
pub mod process;
pub mod random;
pub mod run;
pub mod stage;
pub mod store;
pub mod verify;
pub mod watch;
