//! One login, from the first Login Request to full feature phase (RFC 7143 §6.3): stages, who
//! wants to go where, and whether that is allowed. It knows no sockets and no sessions: the
//! endpoint feeds requests and carries out the [`Step`]s.
//!
//! ```text
//! Security ──T, authenticated──► Operational ──T──► Full feature phase
//!     └───────────T, authenticated, NSG = 3────────────────┘
//! ```

mod names;
mod refusal;
mod security;

pub(crate) use names::allowed;
pub(crate) use refusal::Refusal;

use crate::interface::{Settings, TargetId, TargetSettings};
use crate::negotiate::Negotiation;
use crate::parameters::{Offer, Parameters};
use crate::pdu::{LoginRequest, login_flags};
use crate::random::Random;
use crate::text;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use names::Names;
use security::{Progress, Security};

/// Most text that a login takes before it must be complete, and most that is answered, bytes. The
/// keys of RFC 7143 need less than 2 KiB, CHAP with its longest challenge 2 KiB more.
pub(crate) const MAX_TEXT: usize = 8192;
/// Most keys in one login; initiators send about 30.
const MAX_KEYS: usize = 256;
/// Most Login Requests in one login; initiators need 2 to 5.
const MAX_REQUESTS: u32 = 64;

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// What the endpoint does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Answer, and wait for the next request.
    Answer(Answer),
    /// Everything is settled: set the session up, then answer.
    Finish(Answer),
    /// Answer with this status and close.
    Refuse(Refusal),
}

/// A Login Response without the fields that the connection knows.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) flags: u8,
    pub(crate) text: Vec<u8>,
}

/// What a finished login has found out.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) initiator: String,
    /// None: a discovery session.
    pub(crate) target: Option<TargetId>,
}

/// A login in progress.
#[derive(Debug)]
pub(crate) struct Login {
    group: u16,
    stage: Option<u8>,
    requests: u32,
    /// Text that goes on in the next request (C bit).
    partial: Vec<u8>,
    seen: BTreeSet<String>,
    names: Names,
    /// Settled with the first complete request.
    identity: Option<Identity>,
    security: Security,
    negotiation: Negotiation,
    isid: [u8; 6],
    tsih: u16,
    cid: u16,
}

impl Login {
    /// A login through a portal of the portal group `group`.
    pub(crate) fn new(group: u16, settings: &Settings) -> Self {
        Self {
            group,
            stage: None,
            requests: 0,
            partial: Vec::new(),
            seen: BTreeSet::new(),
            names: Names::default(),
            identity: None,
            security: Security::Open,
            negotiation: Negotiation::new(Offer::new(settings)),
            isid: [0; 6],
            tsih: 0,
            cid: 0,
        }
    }

    pub(crate) fn isid(&self) -> [u8; 6] {
        self.isid
    }

    /// Whether a whole Login Request has come.
    pub(crate) const fn has_begun(&self) -> bool {
        self.requests > 0
    }

    /// The initiator's name as far as it is known, for reports.
    pub(crate) fn initiator(&self) -> &str {
        self.names.initiator.as_deref().unwrap_or("unnamed")
    }

    /// The target, once it is known; None for discovery.
    pub(crate) fn target_id(&self) -> Option<TargetId> {
        self.identity.as_ref()?.target
    }

    /// Takes the result once [`Step::Finish`] was returned.
    pub(crate) fn finish(self) -> (Identity, Parameters) {
        let identity = self.identity.expect("a finished login knows who it is");
        (identity, self.negotiation.finish())
    }

    /// A Login Request with its text.
    pub(crate) fn request(
        &mut self,
        header: &LoginRequest,
        data: &[u8],
        settings: &Settings,
        random: &mut Random,
    ) -> Step {
        match self.try_request(header, data, settings, random) {
            Ok(step) => step,
            Err(refusal) => Step::Refuse(refusal),
        }
    }

    fn try_request(
        &mut self,
        header: &LoginRequest,
        data: &[u8],
        settings: &Settings,
        random: &mut Random,
    ) -> Result<Step, Refusal> {
        let transit = header.flags & login_flags::TRANSIT != 0;
        let goes_on = header.flags & login_flags::CONTINUE != 0;
        let (current, next) = (header.flags >> 2 & 3, header.flags & 3);
        self.check_header(header, current)?;
        if transit && (goes_on || next <= current || next == 2) {
            return Err(Refusal::Stage);
        }
        if self.partial.len() + data.len() > MAX_TEXT {
            return Err(Refusal::TooLong);
        }
        self.partial.extend_from_slice(data);
        if goes_on {
            return Ok(Step::Answer(Answer {
                flags: current << 2,
                text: Vec::new(),
            }));
        }

        let text = core::mem::take(&mut self.partial);
        let keys = text::pairs(&text)?;
        let mut reply = Vec::new();
        self.take_names(&keys)?;
        if self.identity.is_none() {
            self.identity = Some(self.names.resolve(settings)?);
            self.introduce(settings, &mut reply);
        }
        let progress = self.authenticate(current, &keys, settings, random, &mut reply)?;
        self.negotiation.answer(&keys, &mut reply)?;
        self.answer_others(&keys, &mut reply);
        if current == OPERATIONAL {
            self.negotiation.declare(&mut reply);
        }
        if reply.len() > MAX_TEXT {
            return Err(Refusal::TooLong);
        }

        if !transit || progress == Progress::Pending {
            return Ok(Step::Answer(Answer {
                flags: current << 2,
                text: reply,
            }));
        }
        self.stage = Some(next);
        let flags = login_flags::TRANSIT | current << 2 | next;
        let answer = Answer { flags, text: reply };
        Ok(if next == FULL_FEATURE {
            Step::Finish(answer)
        } else {
            Step::Answer(answer)
        })
    }

    /// Versions, stages, and that the fields that name the session stay as they were.
    fn check_header(&mut self, header: &LoginRequest, current: u8) -> Result<(), Refusal> {
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return Err(Refusal::TooLong);
        }
        if header.version_min != 0 {
            return Err(Refusal::Version);
        }
        if current != SECURITY && current != OPERATIONAL {
            return Err(Refusal::Stage);
        }
        match self.stage {
            None => {
                self.stage = Some(current);
                self.isid = header.isid;
                self.tsih = header.tsih.get();
                self.cid = header.cid.get();
                Ok(())
            }
            Some(stage) if stage != current => Err(Refusal::Stage),
            Some(_) => {
                let same = self.isid == header.isid
                    && self.tsih == header.tsih.get()
                    && self.cid == header.cid.get();
                if same { Ok(()) } else { Err(Refusal::Changed) }
            }
        }
    }

    /// The names, and that no other key comes twice. Names may be repeated (some initiators do so
    /// in each stage), but not changed.
    fn take_names(&mut self, keys: &[(&str, &str)]) -> Result<(), Refusal> {
        for &(key, value) in keys {
            let answer = matches!(value, "NotUnderstood" | "Irrelevant" | "Reject");
            if self.names.take(key, value)? || answer {
                continue;
            }
            if self.seen.len() >= MAX_KEYS {
                return Err(Refusal::TooLong);
            }
            if !self.seen.insert(String::from(key)) {
                return Err(Refusal::Twice(String::from(key)));
            }
        }
        Ok(())
    }

    /// What the target says of itself in its first answer (RFC 7143 §13.9, §13.6).
    fn introduce(&self, settings: &Settings, reply: &mut Vec<u8>) {
        let Some(target) = self.target(settings) else {
            return;
        };
        if !target.alias.is_empty() && target.alias.len() <= text::MAX_VALUE {
            text::push(reply, "TargetAlias", &target.alias);
        }
        text::push_number(reply, "TargetPortalGroupTag", u32::from(self.group));
    }

    fn target<'s>(&self, settings: &'s Settings) -> Option<&'s TargetSettings> {
        let id = self.identity.as_ref()?.target?;
        settings.targets.iter().find(|target| target.id == id)
    }

    /// Whether the initiator may leave the security stage, after these keys.
    fn authenticate(
        &mut self,
        current: u8,
        keys: &[(&str, &str)],
        settings: &Settings,
        random: &mut Random,
        reply: &mut Vec<u8>,
    ) -> Result<Progress, Refusal> {
        let discovery = self
            .identity
            .as_ref()
            .is_some_and(|identity| identity.target.is_none());
        let (accounts, mutual) = match self.target(settings) {
            Some(target) => (target.chap.as_slice(), target.mutual.as_ref()),
            None if discovery => (
                settings.discovery_chap.as_slice(),
                settings.discovery_mutual.as_ref(),
            ),
            // The target went away while the initiator was logging in.
            None => return Err(Refusal::Removed),
        };
        if current == SECURITY {
            return self.security.answer(keys, accounts, mutual, random, reply);
        }
        if self.security.may_pass(accounts) {
            Ok(Progress::Passed)
        } else {
            Err(Refusal::Skipped)
        }
    }

    /// Keys that nobody here negotiates.
    fn answer_others(&self, keys: &[(&str, &str)], reply: &mut Vec<u8>) {
        for &(key, value) in keys {
            let known = Names::knows(key) || Security::knows(key) || Negotiation::knows(key);
            if known || matches!(value, "NotUnderstood" | "Irrelevant" | "Reject") {
                continue;
            }
            let ours = matches!(
                key,
                "TargetAlias" | "TargetAddress" | "TargetPortalGroupTag"
            );
            text::push(reply, key, if ours { "Reject" } else { "NotUnderstood" });
        }
    }
}
