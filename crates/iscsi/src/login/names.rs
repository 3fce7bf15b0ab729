//! Who logs in where: InitiatorName, TargetName, SessionType (RFC 7143 §13.4, §13.5, §13.21).

use super::{Identity, Refusal};
use crate::interface::Settings;
use alloc::string::String;

/// Longest iSCSI name, bytes (RFC 7143 §4.2.7.2).
const MAX_NAME: usize = 223;

/// The declarative keys of the first request, as they were sent; names in lower case.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) initiator: Option<String>,
    target: Option<String>,
    session_type: Option<String>,
}

impl Names {
    pub(super) fn knows(key: &str) -> bool {
        matches!(
            key,
            "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType"
        )
    }

    /// Keeps one of the names; false: it is another key.
    pub(super) fn take(&mut self, key: &str, value: &str) -> Result<bool, Refusal> {
        let (place, value) = match key {
            "InitiatorName" => (&mut self.initiator, name("InitiatorName", value)?),
            "TargetName" => (&mut self.target, name("TargetName", value)?),
            "SessionType" => (&mut self.session_type, String::from(value)),
            "InitiatorAlias" => return Ok(true),
            _ => return Ok(false),
        };
        if place.get_or_insert_with(|| value.clone()) == &value {
            Ok(true)
        } else {
            Err(Refusal::Twice(String::from(key)))
        }
    }

    /// The session that these names ask for, if it may be had.
    pub(super) fn resolve(&self, settings: &Settings) -> Result<Identity, Refusal> {
        let initiator = self
            .initiator
            .clone()
            .ok_or(Refusal::Missing("InitiatorName"))?;
        match self.session_type.as_deref() {
            None | Some("Normal") => {}
            Some("Discovery") => {
                return Ok(Identity {
                    initiator,
                    target: None,
                });
            }
            Some(other) => return Err(Refusal::SessionType(String::from(other))),
        }
        let name = self.target.as_ref().ok_or(Refusal::Missing("TargetName"))?;
        let target = settings
            .targets
            .iter()
            .find(|target| target.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| Refusal::NotFound(name.clone()))?;
        if !allowed(&target.allow, &initiator) {
            return Err(Refusal::NotAllowed(name.clone()));
        }
        Ok(Identity {
            initiator,
            target: Some(target.id),
        })
    }
}

/// Whether a list of initiators (empty: all) has this one.
pub(crate) fn allowed(list: &[String], initiator: &str) -> bool {
    list.is_empty() || list.iter().any(|name| name.eq_ignore_ascii_case(initiator))
}

/// Names compare without regard to case (RFC 3722); those that are not ASCII compare as they are.
fn name(key: &'static str, value: &str) -> Result<String, Refusal> {
    let printable = value.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if value.is_empty() || value.len() > MAX_NAME || !printable {
        return Err(Refusal::BadName(key));
    }
    Ok(value.to_ascii_lowercase())
}
