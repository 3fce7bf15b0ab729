//! What must hold at the end, and the table that says so.

use super::pair::Pair;
use super::story::{BLOCK_SIZE, parameters};
use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets};
use lockstep_initiator::client::Client;
use lockstep_initiator::core::chap::Account;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_initiator::load::Report;
use lockstep_initiator::verify::{self, Findings};
use serde::Serialize;
use std::time::Duration;

/// The demo's initiator name.
pub(super) const INITIATOR: &str = "iqn.2026-11.com.example:demo-initiator";

/// What the README promises.
const PROMISED: Duration = Duration::from_secs(60);

/// The result.
#[derive(Serialize)]
pub(super) struct Outcome {
    /// Everything held.
    ok: bool,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    result: String,
}

impl Outcome {
    pub(super) fn holds(&self) -> bool {
        self.ok
    }

    /// Adds how long all of it took, from the first daemon's start to the last comparison.
    pub(super) fn took(&mut self, time: Duration, promised: bool) {
        let check = Check {
            name: "the whole demo",
            ok: !promised || time < PROMISED,
            result: format!("{:.1} s", time.as_secs_f64()),
        };
        self.ok &= check.ok;
        self.checks.push(check);
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        for check in &self.checks {
            let verdict = Cell::new(if check.ok { "ok" } else { "FAILED" })
                .set_alignment(CellAlignment::Center);
            table.add_row([Cell::new(check.name), Cell::new(&check.result), verdict]);
        }
        table
    }
}

/// Whether discovery through each node lists the target with both portals.
pub(super) fn discover(pair: &Pair, chap: Option<&Account>) -> Result<bool> {
    let mut both = true;
    for node in &pair.nodes {
        let wanted = Parameters {
            chap: chap.cloned(),
            ..Parameters::new(INITIATOR, Purpose::Discovery)
        };
        let open = Parameters {
            chap: None,
            ..wanted.clone()
        };
        // Discovery may be open although the target is not.
        let mut client =
            Client::login(node.portal, open).or_else(|_| Client::login(node.portal, wanted))?;
        let found = client
            .discover()
            .with_context(|| format!("discovery at {}", node.portal))?;
        client.logout()?;
        let ours = found.iter().find(|target| target.name == pair.target);
        let listed = |portal: &str| {
            ours.is_some_and(|target| {
                target
                    .portals
                    .iter()
                    .any(|listed| listed.split(',').next() == Some(portal))
            })
        };
        both &= pair
            .nodes
            .iter()
            .all(|node| listed(&node.portal.to_string()));
    }
    Ok(both)
}

/// Compares everything with everything.
pub(super) fn compare(
    pair: &Pair,
    chap: Option<&Account>,
    discovered: bool,
    went_on: bool,
    pause: Duration,
    resynced: Duration,
    mut report: Report,
) -> Result<Outcome> {
    let mut checks = vec![
        Check {
            name: "discovery lists both nodes",
            ok: discovered,
            result: pair.target.clone(),
        },
        Check {
            name: "I/O went on after the kill",
            ok: went_on && report.failures.is_empty(),
            result: match report.failures.first() {
                Some(failure) => failure.clone(),
                None => format!("longest pause {:.2} s, no error", pause.as_secs_f64()),
            },
        },
        Check {
            name: "resynchronised",
            ok: true,
            result: format!("{:.1} s after the restart", resynced.as_secs_f64()),
        },
        found("reads while it happened", &report.findings),
    ];
    for (name, node) in [
        "every acknowledged write read by node1",
        "every acknowledged write read by node2",
    ]
    .into_iter()
    .zip(&pair.nodes)
    {
        let mut client = Client::login(node.portal, parameters(pair, chap))?;
        let findings = verify::through(&mut client, pair.lun, BLOCK_SIZE, &mut report.ledger)?;
        client.run_past_attentions(&Command::flush(pair.lun))?;
        client.logout()?;
        checks.push(found(name, &findings));
    }
    let [first, second] = [0, 1].map(|node| pair.nodes[node].image());
    for (name, image) in [("image of node1", &first), ("image of node2", &second)] {
        let findings = verify::image(image, &mut report.ledger)
            .with_context(|| image.display().to_string())?;
        checks.push(found(name, &findings));
    }
    let difference = verify::first_difference(&first, &second)?;
    checks.push(Check {
        name: "both images, byte by byte",
        ok: difference.is_none(),
        result: match difference {
            None => format!("identical, {} MiB", verify::size(&first)? >> 20),
            Some(at) => format!("differ from byte {at} on"),
        },
    });
    checks.push(Check {
        name: "acknowledged writes",
        ok: report.writes > 0,
        result: format!(
            "{}; {} commands answered by node1, {} by node2; cache {}",
            report.writes,
            report.by_path[0],
            report.by_path[1],
            pair.cache.word()
        ),
    });
    Ok(Outcome {
        ok: checks.iter().all(|check| check.ok),
        checks,
    })
}

fn found(name: &'static str, findings: &Findings) -> Check {
    let result = match findings.named.first() {
        None => format!("{} blocks, all right", findings.checked),
        Some(wrong) => format!(
            "{} of {} blocks wrong; {wrong}",
            findings.wrong, findings.checked
        ),
    };
    Check {
        name,
        ok: findings.is_clean() && findings.checked > 0,
        result,
    }
}
