//! The disks of a shard's volumes: opening and locking them, and carrying out `Io` on them
//! through the ring, or at once where that cannot block.
//!
//! A disk is an image (the plain blocks, byte for byte, in a file or a block device) and a small
//! metadata file. Whoever has the lock of the image's open file description may write; operations
//! of a killed predecessor hold that lock until the last of them has ended.

mod disk;
mod durability;
mod flush;
mod metadata;
mod read;
mod work;
mod write;

pub use disk::{Disk, DiskSpec, Metadata, OpenError};
pub(crate) use disk::{kind_of_path, lock, open_image};
pub use work::{IoDone, Machine, Store};
pub(crate) use write::ZERO_BYTES;

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
