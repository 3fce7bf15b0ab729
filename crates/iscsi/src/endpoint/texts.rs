//! Text requests: SendTargets and little else, in and out in pieces if need be (RFC 7143 §6.2,
//! §11.10, Appendix C).

use super::Endpoint;
use crate::interface::{ConnId, Output, Settings};
use crate::login::{MAX_TEXT, allowed};
use crate::negotiate::{Negotiation, segment_length};
use crate::pdu::{FINAL, NO_TAG, TextRequest, TextResponse, opcode, reject_reason, text_flags};
use crate::session::Session;
use crate::text;
use alloc::string::ToString;
use alloc::vec::Vec;
use zerocopy::{FromZeros, transmute};

impl Endpoint {
    pub(super) fn text(&mut self, conn: ConnId, data: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let request: TextRequest = transmute!(connection.header);
        let texts = &mut connection.texts;
        let tag = request.transfer_tag.get();
        if tag == NO_TAG {
            *texts = crate::connection::Texts::default();
        } else if texts.tag != Some(tag) {
            return self.reject(conn, reject_reason::INVALID_FIELD, out);
        }
        if texts.partial.len() + data.len() > MAX_TEXT {
            *texts = crate::connection::Texts::default();
            return self.reject(conn, reject_reason::LONG_OPERATION, out);
        }
        texts.partial.extend_from_slice(data);
        if request.flags & text_flags::CONTINUE != 0 {
            return self.send_text(conn, &request, false, out);
        }
        let complete = core::mem::take(&mut texts.partial);
        if !complete.is_empty() && !texts.pending.is_empty() {
            // A new question before the last answer was fetched.
            *texts = crate::connection::Texts::default();
            return self.reject(conn, reject_reason::PROTOCOL, out);
        }
        if !complete.is_empty() {
            match self.answer_text(conn, &complete) {
                Ok(reply) => {
                    if let Some(connection) = self.connection_mut(conn) {
                        connection.texts.pending.extend_from_slice(&reply);
                    }
                }
                Err(reason) => return self.reject(conn, reason, out),
            }
        }
        self.send_text(conn, &request, true, out);
    }

    fn answer_text(&mut self, conn: ConnId, complete: &[u8]) -> Result<Vec<u8>, u8> {
        let keys = text::pairs(complete).map_err(|_| reject_reason::INVALID_FIELD)?;
        let index = self
            .connection(conn)
            .and_then(|connection| connection.session());
        let session = index.and_then(|index| self.sessions[index as usize].as_mut());
        let session = session.ok_or(reject_reason::PROTOCOL)?;
        let mut reply = Vec::new();
        let mut understood = keys.is_empty();
        for (key, value) in keys {
            match key {
                "SendTargets" => {
                    send_targets(value, &self.settings, session, &mut reply)
                        .ok_or(reject_reason::INVALID_FIELD)?;
                }
                "MaxRecvDataSegmentLength" => {
                    session.parameters.max_send =
                        segment_length(value).ok_or(reject_reason::INVALID_FIELD)?;
                }
                // Settled by the login.
                key if Negotiation::knows(key) => text::push(&mut reply, key, "Reject"),
                key => {
                    text::push(&mut reply, key, "NotUnderstood");
                    continue;
                }
            }
            understood = true;
        }
        // Nothing but unknown keys is no negotiation; test suites want to see it refused.
        if understood {
            Ok(reply)
        } else {
            Err(reject_reason::INVALID_FIELD)
        }
    }

    /// Sends as much of the answer as fits one PDU. `complete`: the request's text was.
    fn send_text(
        &mut self,
        conn: ConnId,
        request: &TextRequest,
        complete: bool,
        out: &mut Vec<Output>,
    ) {
        let Some((exp_cmd_sn, max_cmd_sn)) = self.command_numbers(conn) else {
            return;
        };
        let limit = self.max_send(conn);
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let mut header = TextResponse::new_zeroed();
        header.opcode = opcode::TEXT_RESPONSE;
        header.lun = request.lun;
        header.task_tag = request.task_tag;
        header.stat_sn = connection.next_stat_sn().into();
        header.exp_cmd_sn = exp_cmd_sn.into();
        header.max_cmd_sn = max_cmd_sn.into();
        let texts = &mut connection.texts;
        let mut piece = Vec::new();
        if complete {
            let rest = texts.pending.split_off(texts.pending.len().min(limit));
            piece = core::mem::replace(&mut texts.pending, rest);
        }
        let goes_on = !texts.pending.is_empty();
        if complete && !goes_on && request.flags & FINAL != 0 {
            header.flags = FINAL;
            header.transfer_tag = NO_TAG.into();
            texts.tag = None;
        } else {
            // Bit 31 stays clear, so it is never the reserved tag.
            let tag = connection.stat_sn & 0x7fff_ffff;
            header.flags = if goes_on { text_flags::CONTINUE } else { 0 };
            header.transfer_tag = tag.into();
            texts.tag = Some(tag);
        }
        connection.send_bytes(&header, piece, out);
    }
}

/// Appends the answer to SendTargets; None: the value is not one for this session. A discovery
/// session sees all targets that admit its initiator, another one only its own: `All` is answered
/// there too, though Appendix C forbids it, because it tells nothing new and initiators ask.
fn send_targets(
    value: &str,
    settings: &Settings,
    session: &Session,
    reply: &mut Vec<u8>,
) -> Option<()> {
    let own = |name: &str| {
        settings
            .targets
            .iter()
            .any(|t| Some(t.id) == session.target && t.name.eq_ignore_ascii_case(name))
    };
    if session.target.is_some() && !matches!(value, "" | "All") && !own(value) {
        return None;
    }
    for target in &settings.targets {
        let asked = match session.target {
            Some(id) => target.id == id,
            None => value == "All" || target.name.eq_ignore_ascii_case(value),
        };
        if !asked || !allowed(&target.allow, &session.initiator) {
            continue;
        }
        text::push(reply, "TargetName", &target.name);
        for portal in &settings.portals {
            let mut address = portal.address.to_string();
            address.push(',');
            address.push_str(&portal.group.to_string());
            text::push(reply, "TargetAddress", &address);
        }
    }
    Some(())
}
