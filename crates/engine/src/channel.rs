//! A control connection as bytes in and frames out: handshake, framing, MACs. Node and witness
//! use it, and only move its bytes.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use lockstep_mirror::control::Incarnation;
use lockstep_mirror::control_frame::{ControlFrame, MAX_PAYLOAD};
use lockstep_mirror::fields::Fields;
use lockstep_mirror::frame::{HEADER_LEN, mac_required};
use lockstep_mirror::hello::{Established, HELLO_LEN, Hello, PROOF_LEN};

/// One end of a control connection.
pub(crate) struct Channel {
    state: State,
    /// Bytes of an unfinished hello, proof or frame.
    buffer: Vec<u8>,
}

enum State {
    Hello(Box<Hello>),
    Proof(Box<Hello>),
    Header(Box<Established>),
    Payload(Box<Established>, Fields),
    /// Refused: nothing more is read or sent.
    Over,
}

/// What came of some bytes.
#[expect(
    clippy::large_enum_variant,
    reason = "one lives at a time, and only for as long as it is looked at"
)]
pub(crate) enum Heard {
    /// To be sent, as part of the handshake.
    Reply(Vec<u8>),
    /// The other end says that it brings a death certificate. Nothing is proved yet.
    Certifier,
    /// The other end has proved itself; this is its run, or the one that it certifies.
    Proven(Incarnation),
    /// A frame of the proven other end.
    Frame(ControlFrame),
}

impl Channel {
    /// A new connection, and what it sends first.
    pub(crate) fn new(hello: Hello) -> (Self, Vec<u8>) {
        let first = hello.first().to_vec();
        let channel = Self {
            state: State::Hello(Box::new(hello)),
            buffer: Vec::new(),
        };
        (channel, first)
    }

    /// A frame as it goes out; `None` before the other end has proved itself.
    pub(crate) fn seal(&mut self, frame: &ControlFrame) -> Option<Vec<u8>> {
        let (State::Header(peer) | State::Payload(peer, _)) = &mut self.state else {
            return None;
        };
        let (fields, payload) = frame.encode();
        let mut bytes = peer.sealer.seal(&fields, Some(&payload)).to_vec();
        bytes.extend_from_slice(&payload);
        Some(bytes)
    }

    fn needs(&self) -> usize {
        match &self.state {
            State::Hello(_) => HELLO_LEN,
            State::Proof(_) => PROOF_LEN,
            State::Header(_) => HEADER_LEN,
            State::Payload(_, fields) => usize::try_from(fields.payload_len).unwrap_or(usize::MAX),
            State::Over => usize::MAX,
        }
    }

    /// Takes bytes in pieces of any size, and adds what came of them to `heard`.
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub(crate) fn take(&mut self, mut bytes: &[u8], heard: &mut Vec<Heard>) -> Result<(), String> {
        while !matches!(self.state, State::Over) {
            let missing = self.needs() - self.buffer.len();
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if now.len() < missing {
                return Ok(());
            }
            let whole = core::mem::take(&mut self.buffer);
            let state = core::mem::replace(&mut self.state, State::Over);
            self.state = step(state, &whole, heard)?;
        }
        Ok(())
    }
}

/// A whole hello, proof, header or payload is here.
fn step(state: State, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<State, String> {
    let exact = "a step is given exactly the bytes that it needs";
    let text = |it: &dyn ToString| it.to_string();
    match state {
        State::Hello(mut hello) => {
            let reply = hello.received(bytes.try_into().expect(exact));
            heard.push(Heard::Reply(reply.map_err(|it| text(&it))?.to_vec()));
            if hello.meets_certifier() {
                heard.push(Heard::Certifier);
            }
            Ok(State::Proof(hello))
        }
        State::Proof(mut hello) => {
            let met = hello.proof(bytes.try_into().expect(exact));
            let met = met.map_err(|it| text(&it))?;
            heard.push(Heard::Proven(met.partner_incarnation));
            Ok(State::Header(Box::new(met)))
        }
        State::Header(mut peer) => {
            let fields = peer.opener.header(bytes.try_into().expect(exact));
            let fields = fields.map_err(|it| text(&it))?;
            let too_long = usize::try_from(fields.payload_len).is_ok_and(|it| it > MAX_PAYLOAD);
            if too_long || !mac_required(fields.kind) {
                return Err(format!(
                    "control frame of kind {:#x} and {} bytes",
                    fields.kind, fields.payload_len
                ));
            }
            if fields.payload_len > 0 {
                return Ok(State::Payload(peer, fields));
            }
            let frame = ControlFrame::decode(&fields, &[]).map_err(|it| text(&it))?;
            heard.push(Heard::Frame(frame));
            Ok(State::Header(peer))
        }
        State::Payload(peer, fields) => {
            peer.opener.payload(bytes).map_err(|it| text(&it))?;
            let frame = ControlFrame::decode(&fields, bytes).map_err(|it| text(&it))?;
            heard.push(Heard::Frame(frame));
            Ok(State::Header(peer))
        }
        State::Over => Ok(State::Over),
    }
}
