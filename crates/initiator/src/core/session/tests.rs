//! Stories of one session against a fake target.

use super::*;
use crate::core::fake_target::FakeTarget;
use alloc::vec;

fn target_parameters() -> Parameters {
    Parameters::new(
        "iqn.test:i",
        Purpose::Normal {
            target: "iqn.test:t".into(),
        },
    )
}

fn seconds(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

/// A session and its target, joined by a wire that cuts the stream into pieces of this length.
struct Talk {
    session: Session,
    target: FakeTarget,
    piece: usize,
}

impl Talk {
    fn new(parameters: Parameters) -> Self {
        Self::with(parameters, FakeTarget::new())
    }

    fn with(parameters: Parameters, mut target: FakeTarget) -> Self {
        target.reset();
        let mut session = Session::new(parameters, [7; 16]);
        session.start(seconds(0));
        let mut talk = Self {
            session,
            target,
            piece: 1,
        };
        talk.pump();
        talk
    }

    fn pump(&mut self) {
        loop {
            let mut out = Vec::new();
            self.session.take_output(&mut out);
            self.target.received(&out);
            let back = core::mem::take(&mut self.target.out);
            for piece in back.chunks(self.piece) {
                self.session.received(seconds(1), piece);
            }
            if out.is_empty() && back.is_empty() {
                return;
            }
        }
    }

    fn run(&mut self, command: Command) -> Reply {
        self.session.command(seconds(1), 5, command);
        self.pump();
        loop {
            match self.session.next_event().unwrap() {
                Event::Done { id: 5, reply } => return reply,
                Event::Ready => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ended(&mut self) -> Ended {
        loop {
            if let Event::Ended(why) = self.session.next_event().expect("it has ended") {
                return why;
            }
        }
    }
}

#[test]
fn data_arrive_whatever_way_they_are_fetched() {
    // Immediate, unsolicited and solicited; the default segment is 8 KiB.
    for (immediate, initial_r2t, burst) in [
        (true, false, None),
        (false, false, None),
        (true, true, Some(9728)),
        (false, true, Some(512)),
    ] {
        let mut target = FakeTarget::new();
        target.burst = burst;
        let first_burst = 16_384;
        let mut talk = Talk::with(
            Parameters {
                immediate,
                initial_r2t,
                first_burst,
                ..target_parameters()
            },
            target,
        );
        talk.session.agreed.immediate = immediate;
        talk.session.agreed.initial_r2t = initial_r2t;
        let data: Vec<u8> = (0..60 * 512_u32)
            .map(|byte| byte.to_le_bytes()[0] ^ byte.to_le_bytes()[1])
            .collect();
        let written = talk.run(Command::write(0, 3, 60, data.clone().into()));
        assert_eq!((written.response, written.status), (0, 0));
        assert_eq!(
            talk.run(Command::read(0, 3, 60, 60 * 512)).data,
            data,
            "{immediate} {initial_r2t} {burst:?}"
        );
    }
}

#[test]
fn the_window_closes_and_opens() {
    let mut target = FakeTarget::new();
    target.window = 2;
    let mut talk = Talk::with(target_parameters(), target);
    assert_eq!(talk.session.window(), 2);
    talk.target.mute = true;
    talk.session
        .command(seconds(1), 1, Command::test_unit_ready(0));
    talk.session
        .command(seconds(1), 2, Command::test_unit_ready(0));
    assert_eq!((talk.session.window(), talk.session.outstanding()), (0, 2));
}

#[test]
fn silence_is_asked_about_and_then_ends_the_session() {
    let mut talk = Talk::new(target_parameters());
    assert_eq!(talk.session.next_deadline(), Some(seconds(6)));
    talk.session.timer(seconds(6));
    talk.pump();
    assert!(talk.target.seen.contains(&opcode::NOP_OUT));
    talk.target.mute = true;
    talk.session.timer(seconds(7));
    talk.session.timer(seconds(12));
    talk.session.timer(seconds(17));
    assert_eq!(talk.ended(), Ended::Timeout("answer to a NOP-Out"));
}

#[test]
fn a_command_without_an_answer_is_lost_not_forgotten() {
    let mut talk = Talk::new(target_parameters());
    talk.target.mute = true;
    talk.session
        .command(seconds(1), 9, Command::test_unit_ready(0));
    talk.session.timer(seconds(31));
    assert_eq!(talk.session.next_event(), Some(Event::Ready));
    assert_eq!(talk.session.next_event(), Some(Event::Lost { id: 9 }));
    assert_eq!(talk.ended(), Ended::Timeout("answer to a command"));
    assert_eq!(talk.session.next_deadline(), None);
}

#[test]
fn a_target_that_breaks_the_protocol_is_left() {
    let bad = |opcode: u8, tag: u32, tail: [u32; 4]| {
        let mut talk = Talk::new(target_parameters());
        talk.session
            .command(seconds(1), 1, Command::write(0, 0, 1, vec![0; 512].into()));
        let header = Header {
            opcode,
            task_tag: tag.into(),
            tail: tail.map(Into::into),
            ..Header::default()
        };
        encode(header, &[], Digests::default(), &mut talk.target.out);
        let bytes = core::mem::take(&mut talk.target.out);
        talk.session.received(seconds(1), &bytes);
        talk.ended()
    };
    assert!(
        matches!(bad(opcode::SCSI_RESPONSE, 99, [0; 4]), Ended::Protocol(_)),
        "no such command"
    );
    assert!(
        matches!(bad(opcode::R2T, 1, [0, 0, 0, 1024]), Ended::Protocol(_)),
        "more than there is"
    );
    assert!(
        matches!(
            bad(opcode::R2T, 1, [0, 0, u32::MAX, 512]),
            Ended::Protocol(_)
        ),
        "beyond the end"
    );
    assert!(
        matches!(bad(opcode::DATA_IN, 1, [0, 0, 512, 0]), Ended::Protocol(_)),
        "a hole"
    );
    assert!(
        matches!(bad(opcode::LOGIN_RESPONSE, 1, [0; 4]), Ended::Protocol(_)),
        "no login now"
    );
    assert!(
        matches!(bad(0x3e, 1, [0; 4]), Ended::Protocol(_)),
        "no such opcode"
    );
    assert_eq!(
        bad(opcode::ASYNC, 1, [0, 0x0200_0000, 0, 0]),
        Ended::Asked(2)
    );
}

#[test]
fn a_login_without_end_is_left() {
    let mut target = FakeTarget::new();
    target.login = (0..100).map(|_| (1 << 2, Vec::new())).collect();
    let mut talk = Talk::with(target_parameters(), target);
    assert_eq!(talk.ended(), Ended::Login(LoginError::Endless));
}

#[test]
fn chap_answers_the_challenge_and_checks_the_target() {
    let text = |text: &str| text.replace(' ', "\0").into_bytes();
    let account = |name: &str| {
        Some(super::super::chap::Account {
            name: name.into(),
            secret: b"secret".to_vec(),
        })
    };
    let proof =
        super::super::chap::hex(&super::super::chap::response(7 ^ 0x5a, b"secret", &[7; 16]));
    for (said, fine) in [(proof.as_str(), true), ("0x00", false)] {
        let mut target = FakeTarget::new();
        target.login = VecDeque::from([
            (0, text("AuthMethod=CHAP ")),
            (0, text("CHAP_A=5 CHAP_I=1 CHAP_C=0x0102 ")),
            (FINAL | 1, text(&alloc::format!("CHAP_N=t CHAP_R={said} "))),
        ]);
        let parameters = Parameters {
            chap: account("i"),
            mutual: account("t"),
            ..target_parameters()
        };
        let mut talk = Talk::with(parameters, target);
        assert_eq!(talk.session.is_ready(), fine);
        if !fine {
            assert_eq!(talk.ended(), Ended::Login(LoginError::TargetProof));
        }
    }
}
