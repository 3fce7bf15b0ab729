//! Streams under cuts, losses and sudden ends.

use super::*;
use crate::wheel::Wheel;

/// Two hosts, one link, and a listener that takes every connection.
struct Pair {
    network: Network,
    wheel: Wheel<NetEvent>,
    now: Duration,
    link: LinkId,
    heard: Vec<(Host, Note)>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut network = Network::new(2, Duration::from_secs(5), Prng::new(seed));
        let link = network.add_link([0, 1], (50, 500));
        Self {
            network,
            wheel: Wheel::new(),
            now: Duration::ZERO,
            link,
            heard: Vec::new(),
        }
    }

    fn connect(&mut self) -> EndId {
        let end = self.network.dial(self.now, self.link, 0, 7, PATIENCE);
        self.run_ms(10);
        assert!(self.heard.contains(&(0, Note::Opened(end))));
        end
    }

    fn run_ms(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        self.settle();
        while let Some((at, event)) = self.wheel.pop() {
            if at > until {
                self.wheel.push(at, event);
                break;
            }
            self.now = at;
            self.network.handle(at, event);
            self.settle();
        }
        self.now = until;
    }

    fn settle(&mut self) {
        while let Some((host, note)) = self.network.next_note() {
            if let Note::Incoming { end, .. } = note {
                self.network.accept(self.now, end);
            }
            self.heard.push((host, note));
        }
        for (at, event) in self.network.take_timers() {
            self.wheel.push(at, event);
        }
    }

    fn closed(&self, end: EndId) -> bool {
        self.heard
            .iter()
            .any(|(_, note)| *note == Note::Closed(end))
    }
}

#[test]
fn bytes_arrive_in_order_whatever_is_lost_on_the_way() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        let end = pair.connect();
        pair.network.link_mut(pair.link).loss = 300;
        let sent: Vec<u8> = (0..=255).collect();
        for piece in sent.chunks(10) {
            pair.network.send(pair.now, end, piece);
        }
        pair.run_ms(60_000);
        assert_eq!(pair.network.arrived(end.other()), sent);
    }
}

#[test]
fn a_cut_stalls_a_stream_and_mending_resumes_it() {
    let mut pair = Pair::new(1);
    let end = pair.connect();
    pair.network.set_up(pair.now, pair.link, 0, false);
    pair.network.send(pair.now, end, b"late");
    pair.run_ms(2000);
    assert!(pair.network.arrived(end.other()).is_empty());
    pair.network.set_up(pair.now, pair.link, 0, true);
    // It tried after 0.2, 0.6 and 1.4 s; the next time is 3 s after it was sent.
    pair.run_ms(900);
    assert!(pair.network.arrived(end.other()).is_empty());
    pair.run_ms(1100);
    assert_eq!(pair.network.arrived(end.other()), b"late");
}

#[test]
fn a_long_cut_ends_the_stream_at_the_sender_only() {
    let mut pair = Pair::new(2);
    let end = pair.connect();
    for direction in 0..2 {
        pair.network.set_up(pair.now, pair.link, direction, false);
    }
    pair.network.send(pair.now, end, b"lost");
    pair.run_ms(6000);
    assert!(pair.closed(end));
    assert!(
        !pair.closed(end.other()),
        "the other end is half open for a while"
    );
}

#[test]
fn bytes_pass_a_one_way_cut_but_their_acknowledgements_do_not() {
    let mut pair = Pair::new(3);
    let end = pair.connect();
    pair.network.set_up(pair.now, pair.link, 1, false);
    pair.network.send(pair.now, end, b"there");
    pair.run_ms(1000);
    assert_eq!(pair.network.arrived(end.other()), b"there");
    pair.run_ms(6000);
    assert!(pair.closed(end));
}

#[test]
fn a_host_without_power_tells_nobody() {
    let mut pair = Pair::new(4);
    let end = pair.connect();
    pair.network.switch_off(1);
    pair.run_ms(1000);
    assert!(!pair.closed(end), "nothing was sent, so nothing was missed");
    pair.network.switch_on(pair.now, 1);
    pair.network.send(pair.now, end, b"still there?");
    pair.run_ms(1000);
    assert!(
        pair.closed(end),
        "its new kernel knows nothing of the stream"
    );
}

#[test]
fn an_idle_stream_to_nobody_is_noticed_in_the_end() {
    let mut pair = Pair::new(7);
    let end = pair.connect();
    pair.network.switch_off(1);
    pair.run_ms(12_000);
    assert!(pair.closed(end));
}

#[test]
fn what_was_sent_before_closing_still_arrives() {
    let mut pair = Pair::new(5);
    let end = pair.connect();
    pair.network.send(pair.now, end, b"goodbye");
    pair.network.close(pair.now, end);
    pair.run_ms(100);
    assert_eq!(pair.network.arrived(end.other()), b"goodbye");
    assert!(pair.closed(end.other()));
}

#[test]
fn a_dial_over_a_dead_link_fails_in_time() {
    let mut pair = Pair::new(6);
    pair.network.set_up(pair.now, pair.link, 1, false);
    let end = pair.network.dial(pair.now, pair.link, 0, 7, PATIENCE);
    pair.run_ms(2990);
    assert!(!pair.heard.contains(&(0, Note::Refused(end))));
    pair.run_ms(20);
    assert!(pair.heard.contains(&(0, Note::Refused(end))));
}

#[test]
fn a_kernel_asks_again_only_after_a_second() {
    let mut pair = Pair::new(8);
    pair.network.set_up(pair.now, pair.link, 1, false);
    let old = pair.network.dial(pair.now, pair.link, 0, 7, PATIENCE);
    pair.run_ms(100);
    pair.network.set_up(pair.now, pair.link, 1, true);
    pair.run_ms(800);
    assert!(!pair.heard.contains(&(0, Note::Opened(old))));
    let new = pair.network.dial(pair.now, pair.link, 0, 7, PATIENCE);
    pair.run_ms(10);
    assert!(pair.heard.contains(&(0, Note::Opened(new))));
    pair.run_ms(200);
    assert!(pair.heard.contains(&(0, Note::Opened(old))));
}
