//! A pair and its witness: two of three decide, and a node that is in the minority serves nothing.
use lockstep_api::pool::SetWitness;
use lockstep_api::quantity::Size;
use lockstep_api::volume::{CreateVolume, Strategy};
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::Load;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::witness::{SECRET, Witness};
use lockstep_tests::{VOLUME, content, wait_for};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn majority(name: &str) -> (Pair, Witness) {
    let mut pair = Pair::start(name);
    let mut witness = Witness::prepare(&pair);
    witness.start();
    witness.introduce(&mut pair);
    pair.create(&CreateVolume {
        size: Size(SIZE),
        strategy: Strategy::Majority,
        ..CreateVolume::default()
    });
    (pair, witness)
}

#[test]
fn with_the_witness_either_node_may_be_killed_and_nothing_is_lost() {
    let (mut pair, _witness) = majority("majority");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    for victim in [0, 1] {
        std::thread::sleep(Duration::from_secs(1));
        pair.nodes[victim].kill();
        pair.nodes[1 - victim].wait_for("the survivor", LIMIT, |node| {
            let volume = node.volume(VOLUME).unwrap();
            volume.state == "serving-alone" && volume.strategy_in_force == Strategy::Majority
        });
        std::thread::sleep(Duration::from_secs(1));
        pair.nodes[victim].start();
        pair.wait_mirrored();
    }
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
    for node in &pair.nodes {
        let unilateral = |text: &str| text.contains("going on alone");
        let events = node.client().events(0).unwrap();
        assert!(
            !events.iter().any(|it| unilateral(&it.text)),
            "only a round of two of three makes a node go on alone"
        );
    }
}

#[test]
fn a_node_that_is_left_with_neither_partner_nor_witness_serves_nothing() {
    let (mut pair, mut witness) = majority("minority");
    witness.kill();
    // Its absence alone is an alarm, no more.
    pair.nodes[0].wait_for("the alarm", LIMIT, |node| {
        let status = node.client().status().unwrap();
        status.concerns.iter().any(|it| it.what == "witness")
    });
    assert_eq!(pair.nodes[0].volume(VOLUME).unwrap().state, "serving");
    pair.nodes[1].kill();
    pair.nodes[0].wait_for("the reason", LIMIT, |node| {
        let volume = node.volume(VOLUME).unwrap();
        volume.reason.contains("witness does not answer")
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_ne!(pair.nodes[0].volume(VOLUME).unwrap().state, "serving-alone");
    witness.start();
    pair.nodes[0].wait_for("the vote", LIMIT, |node| {
        node.volume(VOLUME).unwrap().state == "serving-alone"
    });
    pair.nodes[1].start();
    pair.wait_mirrored();
}

#[test]
fn the_strategy_is_changed_and_the_witness_replaced_while_it_is_served() {
    let (mut pair, mut witness) = majority("strategy");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    for strategy in [Strategy::Heartbeat, Strategy::Majority] {
        let client = pair.nodes[0].client();
        client.set_strategy(VOLUME, strategy).unwrap();
        wait_for("the strategy", LIMIT, || {
            let volume = pair.nodes[1].volume(VOLUME).unwrap();
            volume.strategy_in_force == strategy
        });
        pair.wait_mirrored();
    }
    // A witness that was installed anew is admitted by the two nodes, and votes.
    witness.kill();
    witness.wipe();
    witness.start();
    witness.wait_admitted(&mut pair);
    let life = |pair: &Pair| pair.nodes[0].volume(VOLUME).unwrap().epoch;
    let epoch = life(&pair);
    wait_for("the change of the witness", LIMIT, || life(&pair) > epoch);
    pair.wait_mirrored();
    pair.nodes[0].kill();
    pair.nodes[1].wait_for("its vote", LIMIT, |node| {
        node.volume(VOLUME).unwrap().state == "serving-alone"
    });
    pair.nodes[0].start();
    pair.wait_mirrored();
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn a_wrong_secret_and_a_strategy_without_witness_are_refused_with_the_reason() {
    let mut pair = Pair::with_volume("wrong");
    let client = pair.nodes[0].client();
    let refused = client.set_strategy(VOLUME, Strategy::Majority).unwrap_err();
    assert!(refused.to_string().contains("needs a witness"), "{refused}");
    let mut witness = Witness::prepare(&pair);
    witness.start();
    let wrong = SetWitness {
        address: witness.address.to_string(),
        secret: format!("not {SECRET}"),
    };
    client.set_witness(&wrong).unwrap();
    for node in &mut pair.nodes {
        node.wait_for("the refusal", LIMIT, |node| {
            let witness = node.client().status().unwrap().witness.unwrap();
            !witness.up && !witness.error.is_empty()
        });
    }
    witness.introduce(&mut pair);
    assert!(client.set_strategy(VOLUME, Strategy::Majority).is_ok());
}
