//! Unit attentions: what one nexus has to be told before its next command (SAM-5 §5.14).

use crate::sense::Sense;
use alloc::vec::Vec;

/// Something that a nexus has not heard yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnitAttention {
    /// 29/00: a new nexus begins.
    PowerOn,
    /// 29/02: the target was reset.
    TargetReset,
    /// 29/03: the logical unit was reset.
    LogicalUnitReset,
    /// 29/07: the nexus was lost.
    NexusLost,
    /// 2A/01: another nexus changed a mode page.
    ModeChanged,
    /// 2A/06: a port group has another state.
    AccessStateChanged,
    /// 2A/09: the disk has another size.
    CapacityChanged,
    /// 2F/00: another nexus ended this one's tasks.
    CommandsCleared,
    /// 3F/0E: the target has other logical units.
    LunsChanged,
}

/// Each condition is kept once, so a queue is never longer than there are conditions.
const MAX_QUEUED: usize = 9;

impl UnitAttention {
    pub(crate) fn sense(self) -> Sense {
        let (code, qualifier) = match self {
            Self::PowerOn => (0x29, 0x00),
            Self::TargetReset => (0x29, 0x02),
            Self::LogicalUnitReset => (0x29, 0x03),
            Self::NexusLost => (0x29, 0x07),
            Self::ModeChanged => (0x2a, 0x01),
            Self::AccessStateChanged => (0x2a, 0x06),
            Self::CapacityChanged => (0x2a, 0x09),
            Self::CommandsCleared => (0x2f, 0x00),
            Self::LunsChanged => (0x3f, 0x0e),
        };
        Sense::new(0x6, code, qualifier)
    }

    /// After a reset an initiator looks at everything anew; older news says nothing more.
    fn is_reset(self) -> bool {
        matches!(
            self,
            Self::PowerOn | Self::TargetReset | Self::LogicalUnitReset | Self::NexusLost
        )
    }
}

/// What one nexus has not heard, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Vec<UnitAttention>);

impl Queue {
    pub(crate) fn raise(&mut self, attention: UnitAttention) {
        if attention.is_reset() {
            // 29/00 says "power on, reset, or bus device reset": it stands for every other.
            let power_on = self.0.contains(&UnitAttention::PowerOn);
            self.0.clear();
            self.0.push(if power_on {
                UnitAttention::PowerOn
            } else {
                attention
            });
        } else if !self.0.contains(&attention) {
            self.0.push(attention);
        }
        assert!(
            self.0.len() <= MAX_QUEUED,
            "a unit attention is queued twice"
        );
    }

    /// The next one to report; reporting clears it.
    pub(crate) fn take(&mut self) -> Option<UnitAttention> {
        if self.0.is_empty() {
            None
        } else {
            Some(self.0.remove(0))
        }
    }

    /// The initiator learned it in another way.
    pub(crate) fn forget(&mut self, attention: UnitAttention) {
        self.0.retain(|queued| *queued != attention);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_clears_older_news_and_keeps_power_on() {
        let mut queue = Queue::default();
        queue.raise(UnitAttention::ModeChanged);
        queue.raise(UnitAttention::LogicalUnitReset);
        queue.raise(UnitAttention::CapacityChanged);
        queue.raise(UnitAttention::CapacityChanged);
        assert_eq!(queue.take(), Some(UnitAttention::LogicalUnitReset));
        assert_eq!(queue.take(), Some(UnitAttention::CapacityChanged));
        assert_eq!(queue.take(), None);
        queue.raise(UnitAttention::PowerOn);
        queue.raise(UnitAttention::TargetReset);
        assert_eq!(queue.take(), Some(UnitAttention::PowerOn));
        assert_eq!(queue.take(), None);
    }
}
