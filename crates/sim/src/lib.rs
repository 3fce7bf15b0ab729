//! Two nodes, their disks, in half of the runs a witness, the network between them and the
//! initiators on both paths, all in pretend time: the daemon's own engine runs here under crashes,
//! cuts and torn writes, and what it promises is checked. A run is a function of its seed alone.

pub mod client;
pub mod clock;
pub mod context;
pub mod disk;
pub mod faults;
pub mod ledger;
pub mod machine;
pub mod memory;
pub mod network;
pub mod prng;
pub mod replay;
pub mod watch;
pub mod wheel;
pub mod witness;
pub mod world;
