//! What people are told of a word of a volume's data path.

use crate::node_interface::Severity;
use alloc::format;
use alloc::string::String;
use core::time::Duration;
use lockstep_mirror::control::{FromVolume, SlowPart, VolumeSpec};
use lockstep_mirror::operation::Extent;

fn slow_part(part: SlowPart, spec: &VolumeSpec) -> String {
    let partner = spec.partner.map_or(0, |it| it.0);
    match part {
        SlowPart::Write => "writes to the disk of this node".into(),
        SlowPart::Flush => "flushes of the disk of this node".into(),
        SlowPart::Partner => format!("answers of node {partner} to writes"),
        SlowPart::PartnerFlush => format!("answers of node {partner} to flushes"),
    }
}

/// With a tenth, for what is quick.
fn millis(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What people are told of a word of the data path, if it is worth an event.
pub(super) fn told(word: &FromVolume, spec: &VolumeSpec) -> Option<(Severity, String)> {
    let blocks = |extent: &Extent| {
        let size = u64::from(spec.block_size);
        format!(
            "blocks {} to {}",
            extent.offset / size,
            extent.end() / size - 1
        )
    };
    Some(match word {
        FromVolume::ResyncRestarted => (
            Severity::Warning,
            "the resync stood still for 30 s without a reason that is known: it was begun anew, \
             and repeats nothing that was done"
                .into(),
        ),
        FromVolume::Unreadable { extent } => (
            Severity::Warning,
            format!("{} could not be read here", blocks(extent)),
        ),
        FromVolume::Damaged { parts } => (
            Severity::Warning,
            format!(
                "{parts} parts of its metadata were damaged: all that they stand for is compared \
                 before it counts as equal"
            ),
        ),
        FromVolume::Slow {
            part,
            begins: true,
            usual,
            lately,
        } => {
            let text = format!(
                "{} have taken more than {} ms for 30 s now; 99 of 100 usually take less than {} ms",
                slow_part(*part, spec),
                millis(*lately),
                millis(*usual)
            );
            (Severity::Warning, text)
        }
        FromVolume::Slow { part, .. } => (
            Severity::Info,
            format!("{} take no longer than usual again", slow_part(*part, spec)),
        ),
        FromVolume::Repaired { extent } => (
            Severity::Warning,
            format!(
                "{} were rewritten here from the other node's copy",
                blocks(extent)
            ),
        ),
        FromVolume::Differs { extent } => (
            Severity::Error,
            format!("the copies differ in {}", blocks(extent)),
        ),
        FromVolume::Verified(found) => {
            let severity = match (found.complete, found.differing > found.repaired) {
                (_, true) => Severity::Error,
                (false, _) => Severity::Warning,
                (true, false) => Severity::Info,
            };
            let end = match found.complete {
                true => "both copies were compared",
                false => "the comparison of both copies was interrupted",
            };
            let text = format!(
                "{end}: {} bytes, {} pieces of 64 KiB differed, {} of them were rewritten, {} could \
                 not be read in one copy",
                found.done, found.differing, found.repaired, found.unreadable
            );
            (severity, text)
        }
        _ => return None,
    })
}
