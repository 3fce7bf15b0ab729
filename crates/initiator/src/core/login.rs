//! Login (RFC 7143 §6.3): which text goes out next, and what was agreed at the end.

use super::chap::{self, Account};
use super::session::{Parameters, Purpose};
use super::text;
use super::wire::{CONTINUE, Digests, FINAL};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Why a login did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The target refused, RFC 7143 §11.13.5.
    #[error("the target refused the login: {} (status {:02x}{:02x})", meaning(*class, *detail), class, detail)]
    Refused {
        /// Status class: 1 redirect, 2 initiator error, 3 target error.
        class: u8,
        /// Status detail.
        detail: u8,
    },
    /// The target wants, or has chosen, an authentication we were not given.
    #[error("the target chose the authentication method {0:?}, which was not offered")]
    Method(String),
    /// The target's CHAP keys are missing or make no sense.
    #[error("the target sent no usable {0}")]
    Key(&'static str),
    /// Mutual CHAP: the target does not know the secret it should.
    #[error("the target did not prove itself: its CHAP response is wrong")]
    TargetProof,
    /// The target did not move on within a bounded number of exchanges.
    #[error("the target does not end the login")]
    Endless,
}

fn meaning(class: u8, detail: u8) -> &'static str {
    match (class, detail) {
        (1, _) => "the target has moved",
        (2, 1) => "authentication failure",
        (2, 2) => "this initiator is not authorised",
        (2, 3) => "no such target",
        (2, 4) => "the target was removed",
        (2, 6) => "too many connections",
        (2, 7) => "missing parameter",
        (2, 9) => "session type not supported",
        (2, _) => "initiator error",
        (3, 1) => "service unavailable",
        (3, 2) => "out of resources",
        _ => "target error",
    }
}

/// What was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// In use from the first PDU after login.
    pub digests: Digests,
    /// Data may go out only on R2T (besides immediate data).
    pub initial_r2t: bool,
    /// Data may go with the command.
    pub immediate: bool,
    /// Largest data segment the target takes.
    pub max_send: u32,
    /// Largest sequence of data PDUs.
    pub max_burst: u32,
    /// Most unsolicited data.
    pub first_burst: u32,
}

/// What the login wants.
pub(super) enum Step {
    /// Send this text with these flags.
    Send(u8, Vec<u8>),
    /// Full feature phase.
    Done(Negotiated),
}

/// A login takes two to four exchanges; more than this is a target that plays for time.
const MAX_EXCHANGES: u32 = 16;
/// A login's text is at most this long, all continuations together.
const MAX_TEXT: usize = 64 << 10;
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Offered CHAP; the target's choice is next.
    Method,
    /// Asked for a challenge.
    Challenge,
    /// Answered it.
    Proof,
    /// Operational keys were sent.
    Operational,
}

#[derive(Debug)]
pub(super) struct Login {
    stage: Stage,
    exchanges: u32,
    text: Vec<u8>,
    agreed: Negotiated,
    /// The id and challenge we gave to the target.
    ours: (u8, [u8; 16]),
}

impl Login {
    /// Begins; `nonce` makes the challenge for mutual CHAP.
    pub(super) fn new(parameters: &Parameters, nonce: [u8; 16]) -> (Self, u8, Vec<u8>) {
        let agreed = Negotiated {
            digests: Digests::default(),
            initial_r2t: parameters.initial_r2t,
            immediate: parameters.immediate,
            max_send: 8192,
            max_burst: parameters.max_burst,
            first_burst: parameters.first_burst,
        };
        let mut login = Self {
            stage: Stage::Operational,
            exchanges: 0,
            text: Vec::new(),
            agreed,
            ours: (nonce[0] ^ 0x5a, nonce),
        };
        let mut out = Vec::new();
        text::push(&mut out, "InitiatorName", &parameters.initiator);
        match &parameters.purpose {
            Purpose::Discovery => text::push(&mut out, "SessionType", "Discovery"),
            Purpose::Normal { target } => {
                text::push(&mut out, "TargetName", target);
                text::push(&mut out, "SessionType", "Normal");
            }
        }
        if parameters.chap.is_some() {
            login.stage = Stage::Method;
            text::push(&mut out, "AuthMethod", "CHAP");
            (login, SECURITY << 2, out)
        } else {
            operational(parameters, &mut out);
            (login, FINAL | OPERATIONAL << 2 | FULL, out)
        }
    }

    /// A login response came: its flags, its status and its text.
    pub(super) fn response(
        &mut self,
        parameters: &Parameters,
        flags: u8,
        status: [u8; 2],
        data: &[u8],
    ) -> Result<Step, LoginError> {
        let [class, detail] = status;
        if class != 0 {
            return Err(LoginError::Refused { class, detail });
        }
        self.exchanges += 1;
        if self.exchanges > MAX_EXCHANGES || self.text.len() + data.len() > MAX_TEXT {
            return Err(LoginError::Endless);
        }
        self.text.extend_from_slice(data);
        let stage = if self.stage == Stage::Operational {
            OPERATIONAL
        } else {
            SECURITY
        };
        if flags & CONTINUE != 0 {
            return Ok(Step::Send(stage << 2, Vec::new()));
        }
        let pairs = text::pairs(&core::mem::take(&mut self.text));
        let mut out = Vec::new();
        let chap = parameters.chap.as_ref();
        match (self.stage, chap) {
            (Stage::Method, Some(_)) => {
                let method =
                    text::find(&pairs, "AuthMethod").ok_or(LoginError::Key("AuthMethod"))?;
                if method != "CHAP" {
                    return Err(LoginError::Method(method.into()));
                }
                self.stage = Stage::Challenge;
                text::push(&mut out, "CHAP_A", "5");
                Ok(Step::Send(SECURITY << 2, out))
            }
            (Stage::Challenge, Some(account)) => {
                self.answer(account, parameters.mutual.is_some(), &pairs, &mut out)?;
                self.stage = Stage::Proof;
                Ok(Step::Send(FINAL | SECURITY << 2 | OPERATIONAL, out))
            }
            (Stage::Proof, Some(_)) => {
                if let Some(target) = &parameters.mutual {
                    self.check_target(target, &pairs)?;
                }
                if flags & FINAL == 0 {
                    return Ok(Step::Send(FINAL | SECURITY << 2 | OPERATIONAL, out));
                }
                self.stage = Stage::Operational;
                operational(parameters, &mut out);
                Ok(Step::Send(FINAL | OPERATIONAL << 2 | FULL, out))
            }
            _ => {
                self.agree(parameters, &pairs, &mut out);
                if flags & FINAL != 0 && flags & 3 == FULL {
                    return Ok(Step::Done(self.agreed));
                }
                Ok(Step::Send(FINAL | OPERATIONAL << 2 | FULL, out))
            }
        }
    }

    fn answer(
        &self,
        account: &Account,
        mutual: bool,
        pairs: &[(String, String)],
        out: &mut Vec<u8>,
    ) -> Result<(), LoginError> {
        if text::find(pairs, "CHAP_A") != Some("5") {
            return Err(LoginError::Key("CHAP_A"));
        }
        let id = text::find(pairs, "CHAP_I")
            .and_then(text::number)
            .and_then(|id| u8::try_from(id).ok());
        let id = id.ok_or(LoginError::Key("CHAP_I"))?;
        let challenge = text::find(pairs, "CHAP_C")
            .and_then(chap::binary)
            .ok_or(LoginError::Key("CHAP_C"))?;
        text::push(out, "CHAP_N", &account.name);
        text::push(
            out,
            "CHAP_R",
            &chap::hex(&chap::response(id, &account.secret, &challenge)),
        );
        if mutual {
            text::push(out, "CHAP_I", &self.ours.0.to_string());
            text::push(out, "CHAP_C", &chap::hex(&self.ours.1));
        }
        Ok(())
    }

    fn check_target(&self, target: &Account, pairs: &[(String, String)]) -> Result<(), LoginError> {
        let proof = text::find(pairs, "CHAP_R")
            .and_then(chap::binary)
            .ok_or(LoginError::Key("CHAP_R"))?;
        let named = text::find(pairs, "CHAP_N") == Some(target.name.as_str());
        if named && proof == chap::response(self.ours.0, &target.secret, &self.ours.1) {
            Ok(())
        } else {
            Err(LoginError::TargetProof)
        }
    }

    /// Takes over the target's answers; answers what it offers.
    fn agree(&mut self, parameters: &Parameters, pairs: &[(String, String)], out: &mut Vec<u8>) {
        let agreed = &mut self.agreed;
        for (key, value) in pairs {
            let value = value.as_str();
            let number = text::number(value);
            match key.as_str() {
                "HeaderDigest" => agreed.digests.header = value == "CRC32C",
                "DataDigest" => agreed.digests.data = value == "CRC32C",
                "InitialR2T" => agreed.initial_r2t = parameters.initial_r2t || value != "No",
                "ImmediateData" => agreed.immediate = parameters.immediate && value == "Yes",
                "MaxRecvDataSegmentLength" => {
                    agreed.max_send = number.unwrap_or(8192).clamp(512, 0xff_ffff)
                }
                "MaxBurstLength" => {
                    agreed.max_burst = number.unwrap_or(262_144).min(parameters.max_burst)
                }
                "FirstBurstLength" => {
                    agreed.first_burst = number.unwrap_or(65_536).min(parameters.first_burst)
                }
                "TargetPortalGroupTag"
                | "TargetAlias"
                | "TargetAddress"
                | "MaxConnections"
                | "MaxOutstandingR2T"
                | "DataPDUInOrder"
                | "DataSequenceInOrder"
                | "DefaultTime2Wait"
                | "DefaultTime2Retain"
                | "ErrorRecoveryLevel"
                | "AuthMethod"
                | "TaskReporting"
                | "iSCSIProtocolLevel" => {}
                _ => text::push(out, key, "NotUnderstood"),
            }
        }
        agreed.first_burst = agreed.first_burst.min(agreed.max_burst);
    }
}

fn operational(parameters: &Parameters, out: &mut Vec<u8>) {
    let yes = |yes| if yes { "Yes" } else { "No" };
    let digest = |wanted| if wanted { "CRC32C" } else { "None" };
    text::push(out, "HeaderDigest", digest(parameters.digests.header));
    text::push(out, "DataDigest", digest(parameters.digests.data));
    text::push(
        out,
        "MaxRecvDataSegmentLength",
        &parameters.max_receive.to_string(),
    );
    if matches!(parameters.purpose, Purpose::Discovery) {
        return;
    }
    text::push(out, "InitialR2T", yes(parameters.initial_r2t));
    text::push(out, "ImmediateData", yes(parameters.immediate));
    text::push(out, "MaxBurstLength", &parameters.max_burst.to_string());
    text::push(out, "FirstBurstLength", &parameters.first_burst.to_string());
    text::push(out, "MaxOutstandingR2T", &parameters.max_r2t.to_string());
    text::push(out, "MaxConnections", "1");
    text::push(out, "ErrorRecoveryLevel", "0");
    text::push(out, "DefaultTime2Wait", "0");
    text::push(out, "DefaultTime2Retain", "0");
    text::push(out, "DataPDUInOrder", "Yes");
    text::push(out, "DataSequenceInOrder", "Yes");
}
