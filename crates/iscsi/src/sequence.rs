//! Serial numbers (RFC 7143 §4.2.2) and the command window of a session.

use alloc::vec::Vec;

/// Whether `a` comes before `b` in 32-bit serial arithmetic (RFC 1982).
pub(crate) fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

/// What to do with a command that is not immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is the next one.
    Next,
    /// Outside the window, or there already: to be ignored silently.
    Ignored,
    /// In the window, but one before it is missing. On a single connection at recovery level 0
    /// the missing one can never come.
    Gap,
}

/// ExpCmdSN and MaxCmdSN. The window shrinks by one with each command that is taken and opens by
/// one when it has been answered, so MaxCmdSN never goes back.
#[derive(Clone, Debug)]
pub(crate) struct CommandWindow {
    /// The next CmdSN.
    pub(crate) expected: u32,
    /// The last CmdSN that is taken.
    pub(crate) max: u32,
    /// Numbers ahead that count as received, because a task that never came was aborted. At most
    /// as many as the window is long.
    skipped: Vec<u32>,
}

impl CommandWindow {
    /// A window of `size` commands that begins with `first`.
    pub(crate) fn new(first: u32, size: u32) -> Self {
        Self {
            expected: first,
            max: first.wrapping_add(size).wrapping_sub(1),
            skipped: Vec::new(),
        }
    }

    /// Judges a command; the caller then calls `take` for [`Arrival::Next`].
    pub(crate) fn judge(&self, cmd_sn: u32) -> Arrival {
        if cmd_sn == self.expected && !before(self.max, cmd_sn) {
            Arrival::Next
        } else if before(cmd_sn, self.expected)
            || before(self.max, cmd_sn)
            || self.skipped.contains(&cmd_sn)
        {
            Arrival::Ignored
        } else {
            Arrival::Gap
        }
    }

    /// The expected command is here.
    pub(crate) fn take(&mut self) {
        self.expected = self.expected.wrapping_add(1);
        while let Some(i) = self.skipped.iter().position(|&sn| sn == self.expected) {
            self.skipped.swap_remove(i);
            self.expected = self.expected.wrapping_add(1);
            self.max = self.max.wrapping_add(1);
        }
    }

    /// A command that was taken has been answered.
    pub(crate) fn release(&mut self) {
        self.max = self.max.wrapping_add(1);
    }

    /// An abort names a command that has not come: whether it was still to come, before
    /// `abort_sn`. It then counts as received (RFC 7143 §11.5.5).
    pub(crate) fn skip(&mut self, cmd_sn: u32, abort_sn: u32) -> bool {
        let ahead = !before(cmd_sn, self.expected) && !before(self.max, cmd_sn);
        if !ahead || !before(cmd_sn, abort_sn) || self.skipped.contains(&cmd_sn) {
            return false;
        }
        if cmd_sn == self.expected {
            self.take();
            self.release();
        } else {
            self.skipped.push(cmd_sn);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        assert!(before(u32::MAX, 0));
        assert!(!before(0, u32::MAX));
        assert!(!before(5, 5));
        let mut window = CommandWindow::new(u32::MAX, 2);
        assert_eq!(window.max, 0);
        window.take();
        assert_eq!(window.expected, 0);
        assert_eq!(window.judge(0), Arrival::Next);
    }

    #[test]
    fn a_full_window_takes_nothing() {
        let mut window = CommandWindow::new(10, 2);
        window.take();
        window.take();
        assert_eq!(window.judge(12), Arrival::Ignored);
        window.release();
        assert_eq!(window.judge(12), Arrival::Next);
        assert_eq!(window.judge(11), Arrival::Ignored);
    }

    #[test]
    fn an_aborted_command_that_never_came_leaves_no_hole() {
        let mut window = CommandWindow::new(10, 8);
        assert!(!window.skip(9, 12));
        assert!(!window.skip(12, 12));
        assert!(window.skip(11, 12));
        assert!(!window.skip(11, 12));
        assert_eq!(window.judge(11), Arrival::Ignored);
        assert_eq!(window.judge(12), Arrival::Gap);
        window.take();
        assert_eq!(window.expected, 12);
        assert!(window.skip(12, 13));
        assert_eq!(window.expected, 13);
    }
}
