//! Stories of two paths.

use super::*;
use crate::core::fake_target::{BLOCK, FakeTarget};
use crate::core::session::Purpose;
use alloc::vec;

/// One disk by two paths, in pretend time.
struct World {
    disk: Multipath,
    targets: [FakeTarget; 2],
    /// Whether a path's target can be reached, and its open connection.
    reachable: [bool; 2],
    links: [Option<Link>; 2],
    now: Time,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const STANDBY: [u8; 4] = [0x72, 2, 4, 0x0b];
const TRANSITION: [u8; 4] = [0x72, 2, 4, 0x0a];
const ATTENTION: [u8; 4] = [0x72, 6, 0x29, 0];

impl World {
    fn new() -> Self {
        let parameters = Parameters::new(
            "iqn.test:i",
            Purpose::Normal {
                target: "iqn.test:t".into(),
            },
        );
        let disk = Multipath::new(Options::default(), vec![parameters.clone(), parameters], 1);
        let targets = [FakeTarget::new(), FakeTarget::new()];
        let mut world = Self {
            disk,
            targets,
            reachable: [true; 2],
            links: [None; 2],
            now: Time::ZERO,
        };
        world.advance(ms(0));
        world
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            self.disk.timer(self.now);
            self.settle();
            match self.disk.next_deadline() {
                Some(next) if next <= end && next > self.now => self.now = next,
                _ if self.now >= end => return,
                _ => self.now = end,
            }
        }
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(action) = self.disk.next_action() {
                quiet = false;
                match action {
                    Action::Connect(link) if self.reachable[link.path] => {
                        self.targets[link.path].reset();
                        self.links[link.path] = Some(link);
                        self.disk.connected(self.now, link);
                    }
                    Action::Connect(link) => self.disk.closed(self.now, link),
                    Action::Disconnect(link) => {
                        if self.links[link.path] == Some(link) {
                            self.links[link.path] = None;
                        }
                    }
                }
            }
            for path in 0..2 {
                let Some(link) = self.links[path] else {
                    continue;
                };
                let mut out = Vec::new();
                self.disk.take_output(link, &mut out);
                self.targets[path].received(&out);
                let back = core::mem::take(&mut self.targets[path].out);
                if !back.is_empty() {
                    self.disk.received(self.now, link, &back);
                }
                quiet &= out.is_empty() && back.is_empty();
            }
            if quiet {
                return;
            }
        }
    }

    /// The node of this path dies: its connections are reset, new ones refused.
    fn kill(&mut self, path: usize) {
        self.reachable[path] = false;
        if let Some(link) = self.links[path].take() {
            self.disk.closed(self.now, link);
        }
        self.settle();
    }

    fn write(&mut self, id: u64, path: usize) {
        let command = Command::write(0, id, 1, vec![u8::try_from(id).unwrap(); BLOCK].into());
        self.disk.submit(self.now, id, command, Some(path));
        self.settle();
    }

    fn done(&mut self) -> Vec<(u64, Outcome, Option<usize>)> {
        core::iter::from_fn(|| self.disk.next_done())
            .map(|done| (done.id, done.outcome, done.path))
            .collect()
    }

    fn good(id: u64, path: usize) -> (u64, Outcome, Option<usize>) {
        (id, Outcome::Good(Vec::new()), Some(path))
    }
}

#[test]
fn commands_take_the_path_they_prefer_and_another_when_it_is_gone() {
    let mut world = World::new();
    world.write(1, 0);
    world.write(2, 1);
    world.kill(0);
    world.write(3, 0);
    assert_eq!(
        world.done(),
        [World::good(1, 0), World::good(2, 1), World::good(3, 1)]
    );
}

#[test]
fn a_write_in_flight_goes_to_the_other_path_only_after_the_replacement_time() {
    let mut world = World::new();
    world.targets[0].mute = true;
    world.write(1, 0);
    world.kill(0);
    world.advance(ms(4999));
    assert!(
        world.done().is_empty(),
        "the dead node may still have passed it on"
    );
    world.advance(ms(1));
    assert_eq!(world.done(), [World::good(1, 1)]);
    assert_eq!(world.targets[1].disk[&1], vec![1; BLOCK]);
}

#[test]
fn a_read_in_flight_goes_to_the_other_path_at_once() {
    let mut world = World::new();
    world.targets[0].mute = true;
    world
        .disk
        .submit(world.now, 1, Command::read(0, 0, 1, 512), Some(0));
    world.settle();
    world.kill(0);
    assert_eq!(world.done(), [(1, Outcome::Good(vec![0; BLOCK]), Some(1))]);
}

#[test]
fn a_path_that_comes_back_gets_its_writes_again_at_once() {
    let mut world = World::new();
    world.targets[0].mute = true;
    world.write(1, 0);
    world.kill(0);
    world.targets[0].mute = false;
    world.reachable[0] = true;
    world.advance(ms(600));
    assert_eq!(world.done(), [World::good(1, 0)]);
    assert_eq!(world.disk.history(0).0, 2, "logged in twice");
}

#[test]
fn without_any_path_commands_wait_and_are_given_up_at_last() {
    let mut world = World::new();
    world.targets[0].mute = true;
    world.write(1, 0);
    world.kill(0);
    world.kill(1);
    world.write(2, 0);
    world.advance(ms(119_000));
    assert!(world.done().is_empty());
    world.advance(ms(2_000));
    assert_eq!(
        world.done(),
        [(1, Outcome::Unknown, Some(0)), (2, Outcome::NotSent, None)]
    );
    assert_eq!(world.disk.outstanding(), 0);
}

#[test]
fn a_path_that_may_not_serve_is_left_and_asked_again() {
    let mut world = World::new();
    world.targets[0].answers = VecDeque::from([(2, STANDBY.to_vec()), (2, STANDBY.to_vec())]);
    world.write(1, 0);
    assert_eq!(world.done(), [World::good(1, 1)]);
    assert!(matches!(world.disk.state(0), PathState::Ghost { .. }));
    world.advance(ms(1_000));
    assert!(
        matches!(world.disk.state(0), PathState::Ghost { .. }),
        "asked, and still standing by"
    );
    world.advance(ms(1_000));
    assert_eq!(world.disk.state(0), PathState::Up);
}

#[test]
fn passing_troubles_are_retried_and_lasting_ones_reported() {
    let mut world = World::new();
    world.targets[0].answers = VecDeque::from([
        (2, ATTENTION.to_vec()),
        (2, TRANSITION.to_vec()),
        (8, vec![]),
        (2, ATTENTION.to_vec()),
    ]);
    world.write(1, 0);
    world.advance(ms(1_000));
    assert_eq!(world.done(), [World::good(1, 0)]);
    world.targets[0].answers = VecDeque::from([(2, vec![0x72, 3, 0x0c, 0]), (0x18, vec![])]);
    world.write(2, 0);
    world.write(3, 0);
    let sense = Some(Sense {
        key: 3,
        code: 0x0c,
        qualifier: 0,
    });
    assert_eq!(
        world.done(),
        [
            (2, Outcome::Failed { status: 2, sense }, Some(0)),
            (
                3,
                Outcome::Failed {
                    status: 0x18,
                    sense: None
                },
                Some(0)
            )
        ]
    );
}

#[test]
fn words_of_a_former_connection_are_ignored() {
    let mut world = World::new();
    let old = world.links[0].unwrap();
    world.kill(0);
    world.reachable[0] = true;
    world.advance(ms(600));
    world.disk.received(world.now, old, &[0xff; 480]);
    world.disk.closed(world.now, old);
    world.disk.connected(world.now, old);
    assert_eq!(world.disk.state(0), PathState::Up);
}

#[test]
fn after_a_logout_nothing_is_connected_again() {
    let mut world = World::new();
    world.disk.close();
    world.advance(ms(10_000));
    assert_eq!(world.links, [None, None]);
    assert_eq!(world.disk.history(0), (1, Some(&Ended::LoggedOut)));
}
