//! The project's only unsafe code: the memory arena and the ring itself.
//!
//! Everything here rests on one rule. What the kernel is to touch is owned by the operation's
//! entry in [`Ring::entries`] (a loan of arena bytes, a box, a vector, a descriptor) and stays
//! there, unmoved on the heap, until the operation's last completion was taken. A ring that is
//! dropped cancels and waits; should an operation not end, its memory is leaked, not freed.

use crate::lease::Leases;
use crate::op::{Completion, Gift, Handle, Op, OpId, Token};
use crate::prepare::{Work, prepare};
use crate::setup::SetupError;
use crate::wake::Waker;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::cell::RefCell;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// A huge page; the arena starts and ends at one, so that the kernel can use them throughout.
const HUGE_PAGE: usize = 2 << 20;
/// Slots start at pages: what direct I/O needs of memory at most.
const PAGE: usize = 4096;

/// Some slots of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotClass {
    /// How many.
    pub slots: u32,
    /// Bytes each.
    pub slot_bytes: u32,
}

/// Anonymous memory, zero at first.
struct Mapping {
    base: NonNull<u8>,
    start: usize,
    len: usize,
}

impl Mapping {
    fn new(bytes: usize) -> Result<Self, Errno> {
        let len = bytes.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        // SAFETY: a private anonymous mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        // SAFETY: the range is exactly the mapping just made, and this advice changes no content.
        // That huge pages are switched off is no error.
        let _advice = unsafe { rustix::mm::madvise(base, len, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at address 0");
        let start = base.as_ptr().align_offset(HUGE_PAGE);
        Ok(Self { base, start, len })
    }

    /// The address of byte `at` behind the first huge page border.
    fn address(&self, at: usize) -> *mut u8 {
        assert!(self.start + at <= self.len, "inside the mapping");
        // SAFETY: the assertion keeps the offset inside the mapping, which is one allocation.
        unsafe { self.base.as_ptr().add(self.start + at) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the last owner of the mapping is gone, and with it every loan (each holds an
        // `Rc` of it) and every reference (each borrows from the `Arena`).
        let _always_mapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// What an arena and its loans share.
struct Shared {
    mapping: Mapping,
    leases: RefCell<Leases>,
}

/// Slots of memory for blocks and receive buffers, numbered through all classes in order.
pub struct Arena {
    shared: Rc<Shared>,
    /// First byte and length of each slot.
    slots: Box<[(usize, u32)]>,
}

/// A piece of a slot that the kernel may read. Until it is dropped nobody can change those bytes.
pub struct Lent(Loan);

/// A piece of a slot that the kernel may write. Until it is dropped nobody else has those bytes.
pub struct LentMut(Loan);

struct Loan {
    shared: Rc<Shared>,
    lease: u32,
    at: usize,
    len: u32,
}

impl Arena {
    /// Maps memory for these slots; it is occupied when first used, by huge pages if there are any.
    ///
    /// # Errors
    /// `ENOMEM`: the address space or a limit of the process does not have so much.
    pub fn new(classes: &[SlotClass]) -> Result<Self, Errno> {
        let mut slots = Vec::new();
        let mut end = 0;
        for class in classes {
            for _ in 0..class.slots {
                slots.push((end, class.slot_bytes));
                end += (class.slot_bytes as usize).next_multiple_of(PAGE);
            }
        }
        let leases = RefCell::new(Leases::new(slots.len()));
        let shared = Rc::new(Shared {
            mapping: Mapping::new(end)?,
            leases,
        });
        Ok(Self {
            shared,
            slots: slots.into_boxed_slice(),
        })
    }

    /// How many slots there are.
    #[must_use]
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("classes count in u32")
    }

    /// Bytes of a slot.
    #[must_use]
    pub fn slot_bytes(&self, slot: u32) -> u32 {
        self.slots[slot as usize].1
    }

    /// Loans that have not ended.
    #[must_use]
    pub fn loans(&self) -> usize {
        self.shared.leases.borrow().count()
    }

    /// A piece of a slot.
    ///
    /// # Panics
    /// If it reaches beyond the slot, or the kernel has part of it to write.
    #[must_use]
    pub fn bytes(&self, slot: u32, at: u32, len: u32) -> &[u8] {
        let start = self.locate(slot, at, len);
        assert!(
            self.shared.leases.borrow().may_read(slot, at, at + len),
            "slot {slot} is being filled by the kernel"
        );
        // SAFETY: inside the mapping (`locate`), initialised (anonymous memory is zero), and not
        // written while the reference lives: the kernel has no such loan (asserted) and cannot get
        // one (`lend_mut` needs `&mut self`), and other references to change it need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.shared.mapping.address(start), len as usize) }
    }

    /// A piece of a slot, to be changed.
    ///
    /// # Panics
    /// If it reaches beyond the slot, or part of it is lent.
    #[must_use]
    pub fn bytes_mut(&mut self, slot: u32, at: u32, len: u32) -> &mut [u8] {
        let start = self.locate(slot, at, len);
        assert!(
            self.shared.leases.borrow().may_write(slot, at, at + len),
            "slot {slot} is lent to the kernel"
        );
        // SAFETY: as in `bytes`; that nobody else reads or writes these bytes meanwhile follows
        // from `&mut self`, by which both other references and new loans are made.
        unsafe { std::slice::from_raw_parts_mut(self.shared.mapping.address(start), len as usize) }
    }

    /// Copies between two slots (or two pieces of one slot that do not overlap).
    ///
    /// # Panics
    /// Like `bytes` and `bytes_mut`, or if the pieces overlap.
    pub fn copy(&mut self, from: (u32, u32), to: (u32, u32), len: u32) {
        let source = self.locate(from.0, from.1, len);
        let target = self.locate(to.0, to.1, len);
        assert!(
            source + len as usize <= target || target + len as usize <= source,
            "pieces overlap"
        );
        let leases = self.shared.leases.borrow();
        assert!(
            leases.may_read(from.0, from.1, from.1 + len),
            "slot {} is being filled by the kernel",
            from.0
        );
        assert!(
            leases.may_write(to.0, to.1, to.1 + len),
            "slot {} is lent to the kernel",
            to.0
        );
        let mapping = &self.shared.mapping;
        // SAFETY: both pieces are inside the mapping, do not overlap, are not lent in a way that
        // forbids it (asserted above), and `&mut self` excludes references to them.
        unsafe {
            std::ptr::copy_nonoverlapping(
                mapping.address(source),
                mapping.address(target),
                len as usize,
            )
        };
    }

    /// Lends a piece of a slot to be read by the kernel; other readers may have it too.
    ///
    /// # Panics
    /// Like [`Arena::bytes`].
    #[must_use]
    pub fn lend(&self, slot: u32, at: u32, len: u32) -> Lent {
        let start = self.locate(slot, at, len);
        let mut leases = self.shared.leases.borrow_mut();
        assert!(
            leases.may_read(slot, at, at + len),
            "slot {slot} is being filled by the kernel"
        );
        let lease = leases.begin(slot, at, at + len, false);
        Lent(Loan {
            shared: Rc::clone(&self.shared),
            lease,
            at: start,
            len,
        })
    }

    /// Lends a piece of a slot to be written by the kernel.
    ///
    /// # Panics
    /// Like [`Arena::bytes_mut`].
    #[must_use]
    pub fn lend_mut(&mut self, slot: u32, at: u32, len: u32) -> LentMut {
        let start = self.locate(slot, at, len);
        let mut leases = self.shared.leases.borrow_mut();
        assert!(
            leases.may_write(slot, at, at + len),
            "slot {slot} is lent to the kernel"
        );
        let lease = leases.begin(slot, at, at + len, true);
        LentMut(Loan {
            shared: Rc::clone(&self.shared),
            lease,
            at: start,
            len,
        })
    }

    fn locate(&self, slot: u32, at: u32, len: u32) -> usize {
        let (start, bytes) = self.slots[slot as usize];
        assert!(
            at.checked_add(len).is_some_and(|end| end <= bytes),
            "piece {at}+{len} reaches beyond slot {slot}"
        );
        start + at as usize
    }
}

impl Loan {
    fn pointer(&self) -> *mut u8 {
        self.shared.mapping.address(self.at)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.shared.leases.borrow_mut().end(self.lease);
    }
}

impl Lent {
    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len as usize
    }
    /// A loan of nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    pub(crate) const fn len32(&self) -> u32 {
        self.0.len
    }

    /// For the kernel, which only reads there.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.0.pointer()
    }
}

impl LentMut {
    pub(crate) const fn len(&self) -> u32 {
        self.0.len
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.0.pointer()
    }
}

/// An operation in progress.
struct Entry {
    generation: u32,
    work: Option<Work>,
}

/// A ring of one thread: submissions collect until the next [`Ring::turn`].
pub struct Ring {
    ring: IoUring,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Completions taken early, to make room for submissions.
    early: Vec<(u64, i32, u32)>,
    counter: Handle,
    waker: Waker,
    wake_armed: bool,
}

/// `user_data` of operations whose completion says nothing.
const IGNORED: u64 = u64::MAX;
/// `user_data` of the read of the wake-up counter.
const WAKE: u64 = u64::MAX - 1;
/// The most operations in progress: 512 connections with 2 each, and many thousand of disks.
const ENTRIES_MAX: usize = 32_768;
/// How long a ring that is dropped waits for operations to end before it leaks their memory.
const DROP_TURNS: u32 = 100;
const DROP_TURN: Duration = Duration::from_millis(100);

impl Ring {
    /// A ring with room for `submissions` (a power of two) between two turns; more cost a system
    /// call in between. To be used only by the thread that made it, which the types enforce.
    ///
    /// # Errors
    /// The kernel has none, or forbids it.
    pub fn new(submissions: u32) -> Result<Self, SetupError> {
        let ring = Self::build(submissions).map_err(|error| SetupError(errno(&error)))?;
        let (waker, counter) = Waker::new().map_err(SetupError)?;
        Ok(Self {
            ring,
            entries: Vec::new(),
            free: Vec::new(),
            early: Vec::new(),
            counter: Rc::new(counter),
            waker,
            wake_armed: false,
        })
    }

    /// Tries what newer kernels offer first (6.1 has it all; some sandboxes do not).
    fn build(submissions: u32) -> std::io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(submissions * 4).setup_clamp();
        let plain = builder.clone();
        let fast = builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(submissions);
        match fast {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => plain.build(submissions),
            other => other,
        }
    }

    /// Wakes this ring from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Operations in progress.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Starts an operation (at the next turn).
    ///
    /// # Panics
    /// If more than 32,768 are in progress: its users bound what they start.
    pub fn submit(&mut self, token: Token, op: Op) -> OpId {
        let index = self.free.pop().unwrap_or_else(|| {
            assert!(
                self.entries.len() < ENTRIES_MAX,
                "too many operations in progress"
            );
            self.entries.push(Entry {
                generation: 0,
                work: None,
            });
            u32::try_from(self.entries.len() - 1).expect("bounded above")
        });
        let entry = &mut self.entries[index as usize];
        entry.generation = (entry.generation + 1) & 0x7fff_ffff;
        let id = u64::from(entry.generation) << 32 | u64::from(index);
        let work = entry.work.insert(Work::new(token, op));
        let sqe = prepare(work).user_data(id);
        self.push(&sqe);
        OpId(id)
    }

    /// Asks for an early end of an operation. Its completion still comes; it may have succeeded.
    pub fn cancel(&mut self, op: OpId) {
        let sqe = opcode::AsyncCancel::new(op.0).build().user_data(IGNORED);
        self.push(&sqe);
    }

    /// Hands everything submitted to the kernel and waits until something has completed, a waker
    /// was used or `wait` has passed; takes what has completed. One system call.
    ///
    /// # Errors
    /// The ring is unusable: a mistake of ours, or no memory in the kernel.
    pub fn turn(&mut self, wait: Duration, out: &mut Vec<Completion>) -> Result<(), Errno> {
        if !self.wake_armed {
            let fd = types::Fd(self.counter.as_raw_fd());
            // A poll that fires once: no memory is lent, and the counter is read when it fires.
            let sqe = opcode::PollAdd::new(fd, libc::POLLIN as u32)
                .build()
                .user_data(WAKE);
            self.push(&sqe);
            self.wake_armed = true;
        }
        let idle = self.early.is_empty() && self.ring.completion().is_empty();
        let wait = if idle { wait } else { Duration::ZERO };
        self.enter(wait)?;
        self.take(out);
        Ok(())
    }

    /// Hands everything submitted to the kernel now, without waiting or taking completions.
    ///
    /// # Errors
    /// Like [`Ring::turn`].
    pub fn flush(&mut self) -> Result<(), Errno> {
        self.enter(Duration::ZERO)
    }

    fn push(&mut self, sqe: &squeue::Entry) {
        loop {
            // SAFETY: whatever the entry points to is owned by `entries` (see `prepare`) or has no
            // pointer (cancel, poll), and stays valid until its last completion is taken.
            let pushed = unsafe { self.ring.submission().push(sqe) };
            if pushed.is_ok() {
                return;
            }
            self.enter(Duration::ZERO)
                .expect("the kernel takes submissions from a ring that has room for completions");
            self.early.extend(
                self.ring
                    .completion()
                    .map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())),
            );
        }
    }

    fn enter(&mut self, wait: Duration) -> Result<(), Errno> {
        let queued =
            u32::try_from(self.ring.submission().len()).expect("a submission queue is short");
        let submitter = self.ring.submitter();
        let time = types::Timespec::new()
            .sec(wait.as_secs())
            .nsec(wait.subsec_nanos());
        let args = types::SubmitArgs::new().timespec(&time);
        let want = u32::from(!wait.is_zero());
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
        // SAFETY: the argument is of the type that `EXT_ARG` announces and outlives the call.
        let entered = unsafe { submitter.enter(queued, want, flags, Some(&args)) };
        match entered.map_err(|error| errno(&error)) {
            // ETIME: waited in vain. EINTR: a signal. EBUSY, EAGAIN: completions must be taken
            // first; what was not submitted stays queued for the next turn.
            Ok(_) | Err(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, out: &mut Vec<Completion>) {
        for (data, result, flags) in std::mem::take(&mut self.early) {
            self.completed(data, result, flags, out);
        }
        while let Some(cqe) = self.next() {
            self.completed(cqe.user_data(), cqe.result(), cqe.flags(), out);
        }
    }

    fn next(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn completed(&mut self, data: u64, result: i32, flags: u32, out: &mut Vec<Completion>) {
        match data {
            IGNORED => return,
            WAKE => {
                self.wake_armed = false;
                let mut count = [0; 8];
                // Ready, or else (an error of the poll) the next turn arms it again.
                let _count = rustix::io::read(&*self.counter, &mut count);
                return;
            }
            _ => {}
        }
        let more = cqueue::more(flags);
        let index = u32::try_from(data & 0xffff_ffff).expect("masked");
        let entry = &mut self.entries[index as usize];
        assert_eq!(
            u64::from(entry.generation),
            data >> 32,
            "a completion of an operation that has ended"
        );
        let work = entry
            .work
            .as_mut()
            .expect("an operation is in progress until its last completion");
        let token = work.token;
        let mut gift = Gift::None;
        if let (Op::Accept { .. }, Ok(fd)) = (&work.op, RawFd::try_from(result))
            && fd >= 0
        {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            gift = Gift::Socket(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        if !more {
            // The kernel is done with everything that was lent: the loans end here.
            match entry.work.take().map(|work| work.op) {
                Some(Op::Send { message, .. }) => gift = Gift::Message(message),
                Some(Op::ReadBytes { bytes, .. } | Op::WriteBytes { bytes, .. }) => {
                    gift = Gift::Bytes(bytes)
                }
                _ => {}
            }
            self.free.push(index);
        }
        let result = u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
        out.push(Completion {
            token,
            result,
            more,
            nonempty: cqueue::sock_nonempty(flags),
            gift,
        });
    }
}

/// `io_uring_enter`: run deferred work and look for completions.
const ENTER_GETEVENTS: u32 = 1;
/// `io_uring_enter`: the argument is a `SubmitArgs`.
const ENTER_EXT_ARG: u32 = 8;
/// A message header without address, pieces or control data.
pub(crate) fn empty_header() -> libc::msghdr {
    // SAFETY: zeroes are a valid message header: numbers and null pointers.
    unsafe { std::mem::zeroed() }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut out = Vec::new();
        for index in 0..self.entries.len() {
            let Entry {
                generation,
                work: Some(_),
            } = &self.entries[index]
            else {
                continue;
            };
            let id = u64::from(*generation) << 32 | index as u64;
            self.cancel(OpId(id));
        }
        for _ in 0..DROP_TURNS {
            if self.in_progress() == 0 {
                return;
            }
            if self.turn(DROP_TURN, &mut out).is_err() {
                break;
            }
            out.clear();
        }
        // A disk that does not answer still owns this memory: rather lost than used twice.
        std::mem::forget(std::mem::take(&mut self.entries));
    }
}

#[cfg(test)]
mod tests;
