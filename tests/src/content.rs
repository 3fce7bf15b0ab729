//! The content check: what was acknowledged is read through each node and stands in each image.

use crate::pair::Pair;
use crate::{LUN, VOLUME};
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::ledger::Ledger;
use lockstep_initiator::load::{LoadSettings, Report};
use lockstep_initiator::verify::{self, Findings};

/// A load over the whole of a volume of this size, with 512-byte blocks, reads and writes mixed.
pub fn load(size: u64) -> LoadSettings {
    LoadSettings {
        volume: 1,
        lun: LUN,
        block_size: 512,
        blocks: size / 512,
        depth: 32,
        longest: 64,
        reads_percent: 30,
        zeroes_percent: 5,
        reads_beside_writes: true,
        seed: 0x5eed,
        bytes_per_second: None,
    }
}

/// Nothing was wrong or refused while the load ran.
///
/// # Panics
/// If something was.
pub fn assert_clean(report: &Report) {
    assert!(
        report.findings.is_clean(),
        "wrong while it ran: {}",
        describe(&report.findings)
    );
    assert!(
        report.failures.is_empty(),
        "commands failed: {:#?}",
        report.failures
    );
    assert!(report.writes > 0, "nothing was written");
}

/// Everything that was acknowledged, through each node and in each image; the images are equal.
///
/// # Panics
/// If not.
pub fn assert_both_hold(pair: &Pair, ledger: &mut Ledger) {
    for node in 0..2 {
        let block_size = pair.nodes[node]
            .volume(VOLUME)
            .expect("the node answers")
            .block_size;
        let mut client = pair.login(node).expect("both nodes serve");
        let findings =
            verify::through(&mut client, LUN, block_size, ledger).expect("the session lasts");
        assert!(
            findings.is_clean(),
            "read through node{}: {}",
            node + 1,
            describe(&findings)
        );
        let flushed = client
            .run_past_attentions(&Command::flush(LUN))
            .expect("the session lasts");
        assert_eq!(flushed.status, 0, "SYNCHRONIZE CACHE");
        client.logout().expect("the session lasts");
    }
    for node in 0..2 {
        let findings = verify::image(&pair.image(node), ledger).expect("the image can be read");
        assert!(
            findings.is_clean(),
            "image of node{}: {}",
            node + 1,
            describe(&findings)
        );
    }
    let difference =
        verify::first_difference(&pair.image(0), &pair.image(1)).expect("images can be read");
    assert_eq!(
        difference, None,
        "the first byte in which the images differ"
    );
}

fn describe(findings: &Findings) -> String {
    let first: Vec<String> = findings
        .named
        .iter()
        .take(5)
        .map(ToString::to_string)
        .collect();
    format!(
        "{} of {} blocks: {}",
        findings.wrong,
        findings.checked,
        first.join("; ")
    )
}
