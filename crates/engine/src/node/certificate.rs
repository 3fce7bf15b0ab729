//! Death certificates: word from the partner's machine that a run of it has ended. Which are
//! believed, and when; what they are worth to a volume is the membership's business.

use super::{Node, Turn};
use crate::node_interface::{CertificateStatus, LinkId, Severity};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, Time, VolumeId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::membership::{Certified, Left};

/// For so long a refused certificate is a problem that a person is shown.
const SHOWN_FOR: Duration = Duration::from_secs(3600);

/// What is known of certificates in this run.
#[derive(Default)]
pub(super) struct Certificates {
    /// Believed, and acted on once nothing of that run can come any more.
    pending: Option<Pending>,
    taken: u64,
    refused: u64,
    /// The last one that was refused: why, and when.
    why: Option<(String, Time)>,
}

struct Pending {
    run: Incarnation,
    since: Time,
    left: BTreeMap<VolumeId, Left>,
}

impl Certificates {
    pub(super) const fn status(&self) -> CertificateStatus {
        CertificateStatus {
            taken: self.taken,
            refused: self.refused,
        }
    }

    pub(super) fn problem(&self, now: Time) -> Option<String> {
        let (why, at) = self.why.as_ref()?;
        (now < *at + SHOWN_FOR).then(|| format!("a death certificate was refused: {why}"))
    }

    /// One that is not believed.
    pub(super) fn refuse(&mut self, turn: &mut Turn<'_>, why: &str) {
        self.refused += 1;
        let same = |(text, at): &(String, Time)| text == why && turn.now < *at + SHOWN_FOR;
        if !self.why.as_ref().is_some_and(same) {
            let text = format!("a death certificate was refused: {why}");
            turn.event(Severity::Warning, None, text);
            self.why = Some((why.to_string(), turn.now));
        }
    }
}

impl Node {
    /// A frame of somebody who proved that he speaks for that run of the partner.
    pub(super) fn certificate_in(
        &mut self,
        turn: &mut Turn<'_>,
        id: LinkId,
        run: Incarnation,
        frame: ControlFrame,
    ) {
        let ControlFrame::Certificate(left) = frame else {
            return self.link_refused(turn, id, "only a certificate was expected".to_string());
        };
        let taken = self.believe(turn, run, left);
        if let Some(link) = self.links.get_mut(&id) {
            link.answer(id, &ControlFrame::CertificateAnswer { taken }, turn);
        }
    }

    fn believe(&mut self, turn: &mut Turn<'_>, run: Incarnation, left: Vec<Left>) -> bool {
        // What this run never met it has not promised anything, and waits for nothing of it; and
        // that an earlier run has ended is nothing new.
        if self.heart.last_run() != Some(run) {
            let why = "it names a run of the partner that is not the last one that was met here";
            self.certificates.refuse(turn, why);
            return false;
        }
        let left = left.into_iter().map(|it| (it.volume, it));
        match &mut self.certificates.pending {
            Some(pending) if pending.run == run => pending.left.extend(left),
            // The same word over another link.
            _ if self.heart.has_ended(run) => {}
            pending => {
                *pending = Some(Pending {
                    run,
                    since: turn.now,
                    left: left.collect(),
                });
            }
        }
        true
    }

    /// Acts on a certificate as soon as no link of the run that it names is left: all that the run
    /// said was then heard. The kernel of a process that ended closes its connections, and what is
    /// left of a cut one is closed for its silence; one that goes on speaking is no dead run's.
    pub(super) fn look_at_certificate(&mut self, turn: &mut Turn<'_>) {
        let Some(pending) = &self.certificates.pending else {
            return;
        };
        let (run, since) = (pending.run, pending.since);
        if self.heart.last_run() != Some(run) {
            // Another run was met meanwhile.
            self.certificates.pending = None;
            return;
        }
        if self.links.values().any(|it| it.leads_to(run)) {
            if turn.now >= since + self.settings.timing.silence {
                self.certificates.pending = None;
                let why = "the run that it names goes on speaking; is a copy of that node's state directory used elsewhere?";
                self.certificates.refuse(turn, why);
            }
            return;
        }
        let left = self.certificates.pending.take().map(|it| it.left);
        self.certificates.taken += 1;
        self.heart.ended(run);
        let text = "the partner's daemon has ended, as its machine certifies";
        turn.event(Severity::Warning, None, text.to_string());
        let mut left = left.unwrap_or_default();
        for (id, volume) in &mut self.volumes {
            let word = volume
                .membership
                .partner_ended(turn.now, run, left.remove(id));
            if word == Certified::OtherState {
                let why =
                    "it describes another state of a volume than the one that both nodes served";
                self.certificates.refuse(turn, why);
            }
        }
        if !left.is_empty() {
            let why = "it names a volume that is not known here";
            self.certificates.refuse(turn, why);
        }
        turn.touched.extend(self.volumes.keys().copied());
    }
}
