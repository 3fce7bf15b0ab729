//! Says what each SCSI command means for a disk: an answer, or a block operation (SPC-4, SBC-3).
//! Pure: no clock, no I/O.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod interface;
