//! Explicit-state search, breadth first: every state that a model can reach within its bounds is
//! visited once, and the first broken promise comes with a shortest way to it.
//!
//! A state is remembered by a fingerprint of 128 bits. Two of n states share one with a
//! probability of about n² / 2^129: less than 10^-22 for 10^8 states.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};

/// What can be searched. The same state and step must always lead to the same state.
pub trait Model {
    /// Everything that the future depends on.
    type State: Clone;
    /// One thing that may happen.
    type Step: fmt::Display;

    /// Where it may begin.
    fn starts(&self) -> Vec<Self::State>;
    /// Appends all that may happen in this state, in a fixed order.
    fn steps(&self, state: &Self::State, into: &mut Vec<Self::Step>);
    /// Lets it happen.
    ///
    /// # Errors
    /// The promise that is broken by it.
    fn take(&self, state: &mut Self::State, step: &Self::Step) -> Result<(), String>;
    /// Feeds what tells one state from another into the fingerprint.
    fn key(&self, state: &Self::State, into: &mut Fingerprint);
    /// A state in a few words, for the end of a trace.
    fn describe(&self, _: &Self::State) -> String {
        String::new()
    }
}

/// A hash of 128 bits: SipHash of two inputs that differ in their first byte.
#[derive(Debug)]
pub struct Fingerprint(DefaultHasher, DefaultHasher);

impl Default for Fingerprint {
    fn default() -> Self {
        let (mut low, mut high) = (DefaultHasher::new(), DefaultHasher::new());
        low.write_u8(1);
        high.write_u8(2);
        Self(low, high)
    }
}

impl Fingerprint {
    fn whole(&self) -> u128 {
        u128::from(self.0.finish()) << 64 | u128::from(self.1.finish())
    }

    /// The fingerprint of one thing.
    #[must_use]
    pub fn of(thing: &impl Hash) -> u128 {
        let mut it = Self::default();
        thing.hash(&mut it);
        it.whole()
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0.finish()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
        self.1.write(bytes);
    }
}

/// A fingerprint is spread evenly already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// States visited at most: 40 bytes of memory each, and a whole state each in the two layers
    /// that are being worked on.
    pub states: usize,
    /// Steps from a start at most.
    pub depth: u32,
    /// Time at most.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            states: 20_000_000,
            depth: u32::MAX,
            time: Duration::from_secs(3600),
        }
    }
}

/// What came of a search.
#[derive(Clone, Debug)]
pub struct Report {
    /// States visited.
    pub states: usize,
    /// Steps taken, also those that led to a known state.
    pub steps: u64,
    /// Length of the longest of the shortest ways.
    pub depth: u32,
    /// Nothing was left out: neither states nor time ran out. A bound on the depth is a part of
    /// the scope.
    pub complete: bool,
    /// How long it took.
    pub time: Duration,
    /// The first promise found broken.
    pub broken: Option<Broken>,
}

/// A broken promise and a shortest way to it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which promise.
    pub promise: String,
    /// What happened, in order.
    pub trace: Vec<String>,
    /// Where it ended.
    pub end: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, {} steps, depth {}, {} in {:.1} s: ",
            self.states,
            self.steps,
            self.depth,
            if self.complete { "all" } else { "CUT SHORT" },
            self.time.as_secs_f64()
        )?;
        let Some(broken) = &self.broken else {
            return f.write_str("every promise holds");
        };
        writeln!(f, "BROKEN: {}", broken.promise)?;
        for (number, step) in broken.trace.iter().enumerate() {
            writeln!(f, "  {:3}. {step}", number + 1)?;
        }
        write!(f, "  {}", broken.end)
    }
}

/// Searches until everything was seen, a bound is reached or a promise is broken.
pub fn search<M: Model>(model: &M, bounds: Bounds) -> Report {
    let began = Instant::now();
    let mut seen: HashSet<u128, BuildHasherDefault<AsItIs>> = HashSet::default();
    // For each state the one it was first reached from, and by which of its steps.
    let mut from: Vec<(u32, u32)> = Vec::new();
    let mut report = Report {
        states: 0,
        steps: 0,
        depth: 0,
        complete: true,
        time: Duration::ZERO,
        broken: None,
    };
    let starts = model.starts();
    let mut layer = Vec::new();
    for (number, start) in starts.iter().enumerate() {
        if seen.insert(fingerprint(model, start)) {
            layer.push((index(from.len()), start.clone()));
            from.push((NOWHERE, index(number)));
        }
    }
    let mut steps = Vec::new();
    'all: while !layer.is_empty() && report.depth < bounds.depth {
        let mut next = Vec::new();
        for (place, state) in layer.drain(..) {
            steps.clear();
            model.steps(&state, &mut steps);
            for (number, step) in steps.iter().enumerate() {
                let mut reached = state.clone();
                report.steps += 1;
                if let Err(promise) = model.take(&mut reached, step) {
                    let mut trace = way(model, &starts, &from, place);
                    trace.push(step.to_string());
                    let end = model.describe(&reached);
                    report.broken = Some(Broken {
                        promise,
                        trace,
                        end,
                    });
                    report.complete = false;
                    report.depth += 1;
                    break 'all;
                }
                if seen.insert(fingerprint(model, &reached)) {
                    next.push((index(from.len()), reached));
                    from.push((place, index(number)));
                }
            }
            if from.len() > bounds.states || began.elapsed() > bounds.time {
                report.complete = false;
                break 'all;
            }
        }
        layer = next;
        report.depth += u32::from(!layer.is_empty());
    }
    report.states = from.len();
    report.time = began.elapsed();
    report
}

const NOWHERE: u32 = u32::MAX;

fn index(it: usize) -> u32 {
    u32::try_from(it).expect("memory ends before the numbers do")
}

fn fingerprint<M: Model>(model: &M, state: &M::State) -> u128 {
    let mut it = Fingerprint::default();
    model.key(state, &mut it);
    it.whole()
}

/// The steps that first led to a state, by walking them once more.
fn way<M: Model>(
    model: &M,
    starts: &[M::State],
    from: &[(u32, u32)],
    mut place: u32,
) -> Vec<String> {
    let mut numbers = Vec::new();
    let start = loop {
        let (before, number) = from[place as usize];
        if before == NOWHERE {
            break number;
        }
        numbers.push(number);
        place = before;
    };
    let mut state = starts[start as usize].clone();
    let mut trace = Vec::new();
    for number in numbers.into_iter().rev() {
        let mut steps = Vec::new();
        model.steps(&state, &mut steps);
        let step = &steps[number as usize];
        trace.push(step.to_string());
        model
            .take(&mut state, step)
            .expect("this way was walked before without harm");
    }
    trace
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that somebody may raise; together they must not reach the limit.
    struct Counters {
        limit: u8,
    }

    impl Model for Counters {
        type State = [u8; 2];
        type Step = usize;

        fn starts(&self) -> Vec<Self::State> {
            vec![[0, 0]]
        }
        fn steps(&self, state: &Self::State, into: &mut Vec<usize>) {
            into.extend((0..2).filter(|which| state[*which] < 5));
        }
        fn take(&self, state: &mut Self::State, step: &usize) -> Result<(), String> {
            state[*step] += 1;
            if state[0] + state[1] >= self.limit {
                return Err(String::from("too high"));
            }
            Ok(())
        }
        fn key(&self, state: &Self::State, into: &mut Fingerprint) {
            state.hash(into);
        }
    }

    #[test]
    fn every_state_is_visited_once() {
        let report = search(&Counters { limit: 100 }, Bounds::default());
        assert_eq!((report.states, report.steps, report.depth), (36, 60, 10));
        assert!(report.complete && report.broken.is_none());
    }

    #[test]
    fn the_shortest_way_to_harm_is_told() {
        let report = search(&Counters { limit: 3 }, Bounds::default());
        assert_eq!(report.broken.unwrap().trace, ["0", "0", "0"]);
    }

    #[test]
    fn a_search_that_was_cut_short_says_so() {
        let bounds = Bounds {
            states: 10,
            ..Bounds::default()
        };
        assert!(!search(&Counters { limit: 100 }, bounds).complete);
    }
}
