//! A machine's own clock: it starts at nothing when the machine does, and runs a little wrong.

use core::time::Duration;

/// `CLOCK_BOOTTIME` of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// When it read nothing, in the world's time.
    booted: Duration,
    /// Millionths of its speed: 1,000,000 runs right.
    speed: u64,
    /// By how much it has jumped.
    jumped: Duration,
}

impl Clock {
    /// A clock that starts now. `speed`: in millionths of the right one.
    #[must_use]
    pub const fn new(booted: Duration, speed: u64) -> Self {
        let jumped = Duration::ZERO;
        Self {
            booted,
            speed,
            jumped,
        }
    }

    /// What it shows at a time of the world.
    #[must_use]
    pub fn read(&self, world: Duration) -> Duration {
        scale(world.saturating_sub(self.booted), self.speed, 1_000_000) + self.jumped
    }

    /// From now on it shows so much more.
    pub fn jump(&mut self, by: Duration) {
        self.jumped += by;
    }

    /// It stood still for so long, with its machine, until now.
    pub fn stood_still(&mut self, long: Duration) {
        self.booted += long;
    }

    /// The first moment of the world at which it shows at least `local`.
    #[must_use]
    pub fn when(&self, local: Duration) -> Duration {
        // A deadline in the far future (a number that means never) is as good as an hour.
        let local = local.min(self.read(self.booted + Duration::from_secs(36_000)));
        let mut world =
            self.booted + scale(local.saturating_sub(self.jumped), 1_000_000, self.speed);
        while self.read(world) < local {
            world += Duration::from_nanos(1);
        }
        world
    }
}

fn scale(time: Duration, by: u64, of: u64) -> Duration {
    let nanos = time.as_nanos() * u128::from(by) / u128::from(of);
    Duration::from_nanos(u64::try_from(nanos).expect("runs last minutes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_jumps_and_stands_still() {
        let s = Duration::from_secs;
        let mut clock = Clock::new(s(3), 1_000_000);
        clock.jump(s(3600));
        assert_eq!(clock.read(s(10)), s(3607));
        assert_eq!(clock.when(s(3608)), s(11));
        // From 10 to 30 nothing moved.
        clock.stood_still(s(20));
        assert_eq!(clock.read(s(30)), s(3607));
        assert_eq!(clock.when(s(3608)), s(31));
        assert_eq!(clock.when(s(1)), s(23), "long past");
    }

    #[test]
    fn reading_and_waiting_agree() {
        for speed in [950_000, 1_000_000, 1_050_000] {
            let clock = Clock::new(Duration::from_secs(3), speed);
            for ms in [0, 1, 777, 30_000] {
                let local = Duration::from_millis(ms);
                let when = clock.when(local);
                assert!(clock.read(when) >= local);
                assert!(
                    when == Duration::from_secs(3)
                        || clock.read(when - Duration::from_nanos(2)) < local
                );
            }
        }
    }
}
