//! Deleting a volume: not under an initiator, whichever node it uses; its images stay.

use lockstep_tests::pair::Pair;
use lockstep_tests::{INITIATOR, VOLUME, wait_for};
use std::time::Duration;

/// Deletes the volume at one node: the note, or why not.
fn delete(pair: &Pair, node: usize) -> Result<String, String> {
    let deleted = pair.nodes[node].client().delete_volume(VOLUME, VOLUME);
    deleted
        .map(|changed| changed.note)
        .map_err(|error| error.to_string())
}

fn is_gone(pair: &Pair, node: usize) -> bool {
    pair.nodes[node].volume(VOLUME).is_err() && pair.login(node).is_err()
}

#[test]
fn a_volume_is_not_deleted_under_an_initiator_of_either_node() {
    let pair = Pair::with_volume("inuse");
    let images = [0, 1].map(|node| pair.image(node));
    // Whoever uses a node is seen from both.
    for user in 0..2 {
        let client = pair.login(user).unwrap();
        for asked in 0..2 {
            let why = delete(&pair, asked).expect_err("somebody uses it");
            let named = format!("through node{}: {INITIATOR}", user + 1);
            assert!(why.contains(&named), "{why}");
        }
        client.logout().unwrap();
    }
    // A session is over a moment after its logout.
    let mut last = Err(String::new());
    wait_for("the deletion", Duration::from_secs(5), || {
        last = delete(&pair, 1);
        last.is_ok()
    });
    assert_eq!(last.unwrap(), "");
    for (node, image) in images.iter().enumerate() {
        wait_for("the end of the volume", Duration::from_secs(5), || {
            is_gone(&pair, node)
        });
        assert!(image.is_file(), "the image stays");
    }
}

#[test]
fn without_the_partner_a_volume_is_deleted_with_a_warning_and_there_when_it_returns() {
    let mut pair = Pair::with_volume("away");
    pair.nodes[1].kill();
    // Until this node may serve alone it must not decide alone either.
    let mut last = Err(String::new());
    wait_for("the deletion", Duration::from_secs(20), || {
        last = delete(&pair, 0);
        last.is_ok()
    });
    let note = last.unwrap();
    assert!(
        note.contains("node2 is not reached") && note.contains("when it returns"),
        "{note}"
    );
    pair.nodes[1].start();
    wait_for(
        "the end of the volume there",
        Duration::from_secs(20),
        || is_gone(&pair, 1),
    );
}
