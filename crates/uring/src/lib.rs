//! A safe io_uring for sockets and disks: owned buffers in, owned buffers out.
//!
//! Memory comes from an [`Arena`]. What the kernel is to touch is *lent* ([`Lent`], [`LentMut`]);
//! the loan travels with the operation and ends with its completion, and until then nobody else
//! can get at those bytes. All unsafe code of the project is in `sys.rs`.

mod lease;
mod message;
mod op;
mod prepare;
mod setup;
#[expect(
    unsafe_code,
    reason = "the kernel shares the ring's and the arena's memory with us"
)]
mod sys;
mod wake;

pub mod file;
pub mod net;

pub use message::Message;
pub use op::{Allocate, Completion, Gift, Handle, Op, OpId, Token};
pub use setup::SetupError;
pub use sys::{Arena, Lent, LentMut, Ring, SlotClass};
pub use wake::Waker;

/// Errors as the kernel numbers them.
pub use rustix::io::Errno;
