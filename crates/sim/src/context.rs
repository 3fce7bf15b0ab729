//! What every part of the world shares: the time, the events to come, the network, chance, the
//! trace and the counts. Parts are handed this and themselves, never each other.

use crate::network::{NetEvent, Network};
use crate::prng::Prng;
use crate::wheel::Wheel;
use core::fmt::Display;
use core::time::Duration;
use std::collections::BTreeMap;

/// What happens at some time.
#[derive(Debug)]
pub enum What {
    /// In the network.
    Net(NetEvent),
    /// In a process on a node, if that run of it still lives.
    Process {
        /// The node's host.
        host: usize,
        /// Which run of the daemon there.
        run: u64,
        /// What.
        event: crate::machine::ProcessEvent,
    },
    /// In the witness's process, if that run of it still lives.
    Witness {
        /// Which run.
        run: u64,
        /// What.
        event: crate::witness::WitnessEvent,
    },
    /// With the supervisor of a node's daemon.
    Supervisor {
        /// The node's host.
        host: usize,
        /// What.
        event: crate::machine::certifier::SupervisorEvent,
    },
    /// An initiator looks at its clock.
    Initiator {
        /// Its host.
        host: usize,
        /// What for.
        event: crate::client::ClientEvent,
    },
    /// The next fault of the plan.
    Fault(crate::faults::Fault),
    /// The checks that are made from time to time.
    Inspect,
}

/// See the module.
pub struct Context {
    /// The world's time.
    pub now: Duration,
    /// Events so far.
    pub step: u64,
    /// Events to come.
    pub wheel: Wheel<What>,
    /// The network.
    pub network: Network,
    /// Chance.
    pub prng: Prng,
    /// Whether the trace is printed as it comes.
    pub tracing: bool,
    /// How often things happened that are worth counting.
    pub counts: BTreeMap<&'static str, u64>,
    /// What was found wrong so far.
    pub violations: Vec<String>,
}

impl Context {
    /// A world's beginning.
    #[must_use]
    pub fn new(network: Network, prng: Prng, tracing: bool) -> Self {
        Self {
            now: Duration::ZERO,
            step: 0,
            wheel: Wheel::new(),
            network,
            prng,
            tracing,
            counts: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// Lets something happen after a while.
    pub fn after(&mut self, delay: Duration, what: What) {
        self.wheel.push(self.now + delay, what);
    }

    /// Counts something.
    pub fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// One line of the trace, made only when somebody reads it.
    #[expect(
        clippy::print_stdout,
        reason = "the trace of one seed is what was asked for"
    )]
    pub fn trace<T: Display>(&self, who: impl Display, line: impl FnOnce() -> T) {
        if self.tracing {
            println!(
                "{:>13.6} {:>8} {who:<8} {}",
                self.now.as_secs_f64(),
                self.step,
                line()
            );
        }
    }

    /// A promise was broken.
    pub fn violation(&mut self, what: String) {
        self.trace("CHECK", || &what);
        // The first ones tell the story; a run that goes on wrong would fill the memory.
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }
}
