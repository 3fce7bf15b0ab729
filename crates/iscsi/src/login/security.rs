//! The security stage: which method, and the steps of CHAP in both directions (RFC 7143 §12).

use super::Refusal;
use crate::chap::{self, Challenge};
use crate::interface::ChapSecret;
use crate::negotiate::first_of;
use crate::random::Random;
use crate::text;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes in the challenges that we send.
const CHALLENGE_LEN: usize = 16;

/// How far the security stage has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The initiator may go on to the next stage.
    Passed,
    /// Something is still to come.
    Pending,
}

/// Where the initiator stands.
#[derive(Debug)]
pub(super) enum Security {
    /// No method was agreed on.
    Open,
    /// AuthMethod=None.
    Unauthenticated,
    /// AuthMethod=CHAP; CHAP_A must come.
    Chap,
    /// Our challenge is out; CHAP_N and CHAP_R must come.
    Challenged(Challenge),
    /// It has proved who it is.
    Authenticated,
}

impl Security {
    pub(super) fn knows(key: &str) -> bool {
        matches!(
            key,
            "AuthMethod" | "CHAP_A" | "CHAP_I" | "CHAP_C" | "CHAP_N" | "CHAP_R"
        )
    }

    /// Whether the initiator may be beyond the security stage.
    pub(super) fn may_pass(&self, accounts: &[ChapSecret]) -> bool {
        match self {
            Self::Authenticated => true,
            Self::Open | Self::Unauthenticated => accounts.is_empty(),
            Self::Chap | Self::Challenged(_) => false,
        }
    }

    /// Answers the security keys of one request.
    pub(super) fn answer(
        &mut self,
        keys: &[(&str, &str)],
        accounts: &[ChapSecret],
        mutual: Option<&ChapSecret>,
        random: &mut Random,
        reply: &mut Vec<u8>,
    ) -> Result<Progress, Refusal> {
        let find = |name: &str| {
            keys.iter()
                .find(|(key, _)| *key == name)
                .map(|&(_, value)| value)
        };
        if let Some(offered) = find("AuthMethod") {
            self.choose_method(offered, accounts, reply)?;
        }
        if let Some(offered) = find("CHAP_A") {
            if !matches!(self, Self::Chap) {
                return Err(Refusal::ChapKeys);
            }
            *self = Self::Challenged(challenge(offered, random, reply)?);
        }
        match (
            find("CHAP_N"),
            find("CHAP_R"),
            find("CHAP_I"),
            find("CHAP_C"),
        ) {
            (None, None, None, None) => {}
            (Some(name), Some(response), identifier, challenge) => {
                // A challenge can be answered once: whatever happens next, it is used up.
                let Self::Challenged(sent) = core::mem::replace(self, Self::Chap) else {
                    return Err(Refusal::ChapKeys);
                };
                let account = verify(&sent, name, response, accounts)?;
                match (identifier, challenge) {
                    (None, None) => {}
                    (Some(identifier), Some(theirs)) => {
                        prove(&sent, identifier, theirs, account, mutual, reply)?;
                    }
                    _ => return Err(Refusal::ChapKeys),
                }
                *self = Self::Authenticated;
            }
            _ => return Err(Refusal::ChapKeys),
        }
        if self.may_pass(accounts) {
            return Ok(Progress::Passed);
        }
        if matches!(self, Self::Open) && !keys.iter().any(|&(key, _)| key == "AuthMethod") {
            // Nothing offered is an offer of None.
            return Err(Refusal::ChapNotOffered);
        }
        Ok(Progress::Pending)
    }

    fn choose_method(
        &mut self,
        offered: &str,
        accounts: &[ChapSecret],
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (known, otherwise) = if accounts.is_empty() {
            ("None", Refusal::ChapNotConfigured)
        } else {
            ("CHAP", Refusal::ChapNotOffered)
        };
        let chosen = first_of(offered, &[known]).ok_or(otherwise)?;
        text::push(reply, "AuthMethod", chosen);
        *self = if accounts.is_empty() {
            Self::Unauthenticated
        } else {
            Self::Chap
        };
        Ok(())
    }
}

/// Picks the algorithm and sends a challenge.
fn challenge(
    offered: &str,
    random: &mut Random,
    reply: &mut Vec<u8>,
) -> Result<Challenge, Refusal> {
    let algorithm = first_of(offered, &[chap::MD5]).ok_or(Refusal::Algorithm)?;
    let [identifier] = random.bytes();
    let bytes = random.bytes::<CHALLENGE_LEN>().to_vec();
    text::push(reply, "CHAP_A", algorithm);
    text::push_number(reply, "CHAP_I", u32::from(identifier));
    text::push(reply, "CHAP_C", &text::to_hex(&bytes));
    Ok(Challenge { identifier, bytes })
}

/// Whether the initiator knows the secret of the account it names. An unknown name takes the
/// same time as a wrong secret.
fn verify<'a>(
    sent: &Challenge,
    name: &str,
    response: &str,
    accounts: &'a [ChapSecret],
) -> Result<&'a ChapSecret, Refusal> {
    let given = text::binary(response, chap::RESPONSE_LEN).ok_or(Refusal::ChapKeys)?;
    let account = accounts.iter().find(|account| account.name == name);
    let secret = account.map_or(&[][..], |account| &account.secret);
    let right = chap::verify(sent.identifier, secret, &sent.bytes, &given);
    account
        .filter(|_| right)
        .ok_or_else(|| Refusal::WrongSecret(String::from(name)))
}

/// Answers the initiator's challenge with the target's own secret.
fn prove(
    sent: &Challenge,
    identifier: &str,
    challenge: &str,
    account: &ChapSecret,
    mutual: Option<&ChapSecret>,
    reply: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let identifier = text::number(identifier)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or(Refusal::ChapKeys)?;
    let challenge = text::binary(challenge, chap::MAX_BINARY).ok_or(Refusal::ChapKeys)?;
    if challenge == sent.bytes {
        return Err(Refusal::Reflected);
    }
    let mutual = mutual.ok_or(Refusal::NoMutual)?;
    if chap::same_secret(&mutual.secret, &account.secret) {
        return Err(Refusal::SameSecret);
    }
    let response = chap::response(identifier, &mutual.secret, &challenge);
    text::push(reply, "CHAP_N", &mutual.name);
    text::push(reply, "CHAP_R", &text::to_hex(&response));
    Ok(())
}
