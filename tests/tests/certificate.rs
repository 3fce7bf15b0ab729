//! A daemon that was killed, and its supervisor, who certifies its end.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::quantity::Size;
use lockstep_api::volume::{CreateVolume, Strategy};
use lockstep_initiator::client::Client;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::driver::PathSettings;
use lockstep_initiator::load::Load;
use lockstep_tests::node::{Node, START_LIMIT};
use lockstep_tests::pair::{Pair, SIZE, write_secret};
use lockstep_tests::witness::Witness;
use lockstep_tests::{LUN, content};
use std::time::{Duration, Instant};

fn has_event(node: &Node, text: &str) -> bool {
    let events = node.client().events(0).unwrap();
    events.iter().any(|it| it.text.contains(text))
}

/// Death certificates that a node acted on, and that it refused.
fn certificates(node: &Node) -> (u64, u64) {
    let partner = node.client().status().unwrap().partner;
    (partner.certificates_taken, partner.certificates_refused)
}

/// Under load through both nodes, kills one after the other, each time with a certificate, while
/// the survivor's path is offered one write at a time. Prints that path's longest gaps between
/// acknowledgements.
fn kill_and_certify(mut pair: Pair, cycles: usize) {
    // What was lost on a path is sent again only after seconds: that is no pause of the survivor.
    let half = SIZE / 2;
    let load = Load::start(Options::default(), pair.paths(), content::load(half), None);
    let (mut gaps, mut took) = (Vec::new(), Vec::new());
    for cycle in 0..cycles {
        let victim = cycle % 2;
        let survivor = 1 - victim;
        let before = certificates(&pair.nodes[survivor]);
        let mut path = pair.paths().swap_remove(survivor);
        path.parameters.isid = [0x80, 0, 0, 0, 1, 1];
        let mut offered = Offered::start(path);
        // A node that has just started does nothing alone for some seconds.
        offered.run(Duration::from_millis(2500));
        offered.longest = Duration::ZERO;
        pair.nodes[victim].kill();
        let certificate = std::thread::scope(|scope| {
            let (begun, node) = (Instant::now(), &pair.nodes[victim]);
            let supervisor = scope.spawn(move || (node.certify().success(), begun.elapsed()));
            offered.run(Duration::from_millis(1500));
            supervisor.join().unwrap()
        });
        assert!(certificate.0.contains("1 volume"), "{}", certificate.0);
        took.push(certificate.1);
        gaps.push(offered.longest);
        offered.end();
        // Its survivor knew it from the certificate, not from the silence.
        let after = certificates(&pair.nodes[survivor]);
        assert_eq!(after, (before.0 + 1, before.1));
        assert!(has_event(
            &pair.nodes[survivor],
            "suspended: the partner's daemon has ended"
        ));
        pair.nodes[victim].start();
        pair.wait_mirrored();
        for node in &pair.nodes {
            assert!(!has_event(node, "suspended: the partner is silent"));
            assert!(!has_event(node, "everything is compared"));
        }
    }
    let mut report = load.finish().unwrap();
    gaps.sort();
    println!(
        "{cycles} certified kills: longest gap between acknowledgements: median {:?}, maximum {:?}; \
         certificates took {took:?}",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
    );
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

/// One write after the other on one path, beyond what the load writes.
struct Offered {
    client: Client,
    last: Instant,
    longest: Duration,
}

impl Offered {
    fn start(path: PathSettings) -> Self {
        Self {
            client: Client::login(path.address, path.parameters).unwrap(),
            last: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    /// For so long, and until a write has been acknowledged after that.
    fn run(&mut self, long: Duration) {
        let begun = Instant::now();
        let block = SIZE / 512 - 8;
        while begun.elapsed() < long {
            // What the content check expects where the load writes nothing.
            let data = vec![0; 4096];
            let write = Command::write(LUN, block, 8, data.into());
            let reply = self.client.run_past_attentions(&write).unwrap();
            // Not ready for a moment, or busy: again, as any initiator does.
            if reply.status == 0 {
                self.longest = self.longest.max(self.last.elapsed());
                self.last = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn end(self) {
        self.client.logout().unwrap();
    }
}

#[test]
fn a_certified_kill_interrupts_for_moments_and_loses_nothing() {
    kill_and_certify(Pair::with_volume("certified"), 2);
}

#[test]
fn a_certified_kill_needs_the_witness_s_vote_and_no_silence() {
    let mut pair = Pair::start("certvote");
    let mut witness = Witness::prepare(&pair);
    witness.start();
    witness.introduce(&mut pair);
    pair.create(&CreateVolume {
        size: Size(SIZE),
        strategy: Strategy::Majority,
        ..CreateVolume::default()
    });
    kill_and_certify(pair, 2);
}

#[test]
#[ignore = "long: five minutes"]
fn long_twenty_certified_kills_on_alternating_nodes() {
    kill_and_certify(Pair::with_volume("certtwenty"), 20);
}

#[test]
fn what_runs_is_not_certified() {
    let mut pair = Pair::with_volume("living");
    let ended = pair.nodes[1].certify();
    assert_eq!((ended.code, ended.late), (Some(1), false), "{}", ended.text);
    assert!(ended.text.contains("the daemon runs"), "{}", ended.text);
    pair.wait_mirrored();
    assert_eq!(certificates(&pair.nodes[0]), (0, 0));
}

#[test]
fn a_forged_certificate_is_refused_and_named() {
    let mut pair = Pair::with_volume("forged");
    pair.nodes[1].kill();
    let secret = pair.directory.path().join("secret2");
    write_secret(&secret, "something that somebody guessed");
    let ended = pair.nodes[1].certify();
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    pair.nodes[0].wait_for("the refusal", START_LIMIT, |node| {
        let status = node.client().status().unwrap();
        let named = |text: &str| text.contains("a death certificate was refused");
        let concern = status.concerns.iter().any(|it| named(&it.why));
        status.partner.certificates_refused > 0 && concern
    });
    assert_eq!(certificates(&pair.nodes[0]).0, 0);
    write_secret(&secret, "the same secret for both nodes");
    pair.nodes[1].start();
    pair.wait_mirrored();
}

#[test]
fn a_certificate_of_an_earlier_run_is_refused_and_named() {
    let mut pair = Pair::with_volume("replayed");
    let run = pair.nodes[0].directory.join("state/incarnation");
    let earlier = std::fs::read(&run).unwrap();
    assert!(pair.nodes[0].terminate().success());
    pair.nodes[0].start();
    pair.wait_mirrored();
    pair.nodes[0].kill();
    let last = std::fs::read(&run).unwrap();
    assert_ne!(earlier, last);
    std::fs::write(&run, earlier).unwrap();
    let ended = pair.nodes[0].certify();
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("not the last one"), "{}", ended.text);
    assert_eq!(certificates(&pair.nodes[1]).0, 0);
    let status = pair.nodes[1].client().status().unwrap();
    let named = |text: &str| text.contains("not the last one that was met here");
    assert!(
        status.concerns.iter().any(|it| named(&it.why)),
        "{status:?}"
    );
    // The right one is still worth something.
    std::fs::write(&run, last).unwrap();
    pair.nodes[0].certify().success();
    pair.nodes[0].start();
    pair.wait_mirrored();
}

#[test]
fn a_partner_that_is_dead_as_well_does_not_hold_up_a_stop() {
    let mut pair = Pair::with_volume("alldead");
    for node in &mut pair.nodes {
        node.kill();
    }
    for node in &pair.nodes {
        let begun = Instant::now();
        let ended = node.certify();
        println!("nobody there: it ended after {:?}", begun.elapsed());
        assert_eq!((ended.code, ended.late), (Some(1), false), "{}", ended.text);
        assert!(
            ended.text.contains("no link to the partner"),
            "{}",
            ended.text
        );
    }
    for node in &mut pair.nodes {
        node.start();
    }
    pair.wait_mirrored();
}

#[test]
fn after_an_orderly_stop_a_certificate_changes_nothing() {
    let mut pair = Pair::with_volume("certstop");
    for node in [1, 0] {
        assert!(pair.nodes[node].terminate().success());
        pair.nodes[node].certify().success();
        pair.nodes[node].start();
        pair.wait_mirrored();
    }
    for node in &pair.nodes {
        assert!(!has_event(node, "certificate was refused"));
    }
}
