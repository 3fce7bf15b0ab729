//! A pair and its witness: two of three decide, and a node that is in the minority serves nothing.
use lockstep_api::pool::SetWitness;
use lockstep_api::quantity::Size;
use lockstep_api::volume::{CreateVolume, Strategy};
use lockstep_initiator::client::Client;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::core::sense::{Sense, parse};
use lockstep_initiator::core::session::Reply;
use lockstep_initiator::load::Load;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::witness::{SECRET, Witness};
use lockstep_tests::{LUN, VOLUME, content, wait_for};
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

const GOOD: u8 = 0x00;
const BUSY: u8 = 0x08;
/// NOT READY: asymmetric access state transition, and target port in unavailable state.
const PASSING: Sense = not_ready(0x0a);
const UNAVAILABLE: Sense = not_ready(0x0c);

const fn not_ready(qualifier: u8) -> Sense {
    Sense {
        key: 2,
        code: 4,
        qualifier,
    }
}

fn write() -> Command {
    Command::write(LUN, 64, 8, vec![7; 4096].into())
}

/// What is answered in every state of a port (SPC-4 §5.15.2.4).
fn assert_described(client: &mut Client, state: u8) -> Option<()> {
    for command in [
        Command::inquiry(LUN),
        Command::vital_page(LUN, 0x83),
        Command::report_luns(),
    ] {
        assert_eq!(client.run(command).ok()?.status, GOOD);
    }
    let groups = client
        .run_past_attentions(&Command::port_groups(LUN))
        .ok()?;
    assert_eq!(groups.status, GOOD);
    // The first group is that of node 1. It may have changed since the last refusal.
    let shown = groups.data[4] & 0x0f;
    assert!(shown == state || shown == 3, "{shown:x}");
    Some(())
}

#[test]
fn a_node_without_a_quorum_answers_passing_then_unavailable_and_never_of_lost_data() {
    let (mut pair, mut witness) = majority("answers");
    // Another volume keeps the portals open.
    let other = CreateVolume {
        name: "other".into(),
        size: Size(SIZE),
        ..CreateVolume::default()
    };
    pair.nodes[0].client().create_volume(&other).unwrap();
    pair.nodes[0].wait_for("the other volume", LIMIT, |node| {
        node.volume("other").is_ok_and(|it| it.state == "serving")
    });
    let mut client = pair.login(0).unwrap();
    assert_eq!(client.run_past_attentions(&write()).unwrap().status, GOOD);
    witness.kill();
    pair.nodes[1].kill();
    // What was sent before might be on the other copy, and would wait until the session ends.
    pair.nodes[0].wait_for("the end of the data connections", LIMIT, |node| {
        let status = node.client().status().unwrap();
        status.partner.paths.iter().all(|it| it.channels == 0)
    });
    let (mut busy, mut passing) = (0, 0);
    // Until its session ends: a command that waits, and those that are refused.
    while let Ok(Reply { status, sense, .. }) = client.run_past_attentions(&write()) {
        match (status, parse(&sense)) {
            // Only until the silence is one; then nothing is GOOD.
            (GOOD, _) if passing == 0 => {}
            (BUSY, _) => busy += 1,
            (_, Some(PASSING)) => {
                passing += 1;
                let ready = client.run_past_attentions(&Command::test_unit_ready(LUN));
                let Ok(ready) = ready else { break };
                assert!(matches!(parse(&ready.sense), Some(PASSING | UNAVAILABLE)));
                if assert_described(&mut client, 0x0f).is_none() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            other => panic!("{other:x?}"),
        }
    }
    assert!(busy > 0 && passing > 0, "{busy} BUSY, {passing} passing");
    let volume = pair.nodes[0].volume(VOLUME).unwrap();
    assert_eq!(volume.state, "unavailable", "{volume:?}");
    // Logins are never refused: they find out, and try the other path.
    let mut client = pair.login(0).unwrap();
    let commands = [
        write(),
        Command::read(LUN, 64, 8, 4096),
        Command::flush(LUN),
        Command::test_unit_ready(LUN),
    ];
    for command in &commands {
        let reply = client.run_past_attentions(command).unwrap();
        assert_eq!(parse(&reply.sense), Some(UNAVAILABLE), "{command:?}");
    }
    assert_described(&mut client, 0x03).unwrap();
    // The same session is served as soon as the witness votes.
    witness.start();
    wait_for("a vote", LIMIT, || {
        client.run_past_attentions(&write()).unwrap().status == GOOD
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
