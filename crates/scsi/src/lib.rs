//! Says what each SCSI command means for a disk: an answer, or a block operation (SPC-4, SBC-3).
//! Pure: no clock, no I/O. `Disk` is the entry; one table in `opcodes` drives both what is
//! dispatched and what REPORT SUPPORTED OPERATION CODES lists.
//! Sessions, residuals and the data itself are other layers' business.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod capacity;
mod cdb;
mod defects;
pub mod disk;
mod inquiry;
pub mod interface;
pub mod limits;
mod mode;
mod mode_select;
pub mod no_lun;
mod opcodes;
mod provisioning;
mod read_write;
mod report;
mod report_opcodes;
mod sense;
mod start_stop;
mod unit_attention;
mod vpd;

pub use no_lun::{no_lun, well_known};
