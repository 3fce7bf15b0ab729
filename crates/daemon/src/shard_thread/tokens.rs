//! How completions find their way: what an operation was, and whose.

use lockstep_uring::Token;

/// Bits below the kind.
const KIND: u32 = 56;

/// The owner of an operation that is not the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A listening socket's accept; `epoch` tells an earlier opening of it apart.
    Accept { listener: u16, epoch: u32 },
    /// A dial in progress.
    Dial(u32),
    /// A connection's receive.
    Receive(u32),
    /// A connection's send.
    Send(u32),
}

impl Owner {
    pub(super) const fn token(self) -> Token {
        let (kind, index) = match self {
            Self::Accept { listener, epoch } => (0, (epoch as u64) << 16 | listener as u64),
            Self::Dial(index) => (1, index as u64),
            Self::Receive(index) => (2, index as u64),
            Self::Send(index) => (3, index as u64),
        };
        Token(kind << KIND | index)
    }

    pub(super) fn of(Token(token): Token) -> Self {
        let low = |bits: u64| u32::try_from(bits & 0xffff_ffff).expect("masked");
        match token >> KIND {
            0 => Self::Accept {
                listener: u16::try_from(token & 0xffff).expect("masked"),
                epoch: low(token >> 16),
            },
            1 => Self::Dial(low(token)),
            2 => Self::Receive(low(token)),
            3 => Self::Send(low(token)),
            _ => unreachable!("tokens are made above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_owner() {
        let owners = [
            Owner::Accept {
                listener: 513,
                epoch: u32::MAX,
            },
            Owner::Dial(7),
            Owner::Receive(u32::MAX),
            Owner::Send(0),
        ];
        for owner in owners {
            assert_eq!(Owner::of(owner.token()), owner);
            assert_eq!(owner.token().0 & crate::store::Store::TOKENS, 0);
        }
    }
}
