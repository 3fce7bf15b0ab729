//! Plays what a real daemon recorded (`lockstep daemon --record FILE`): machines made anew take
//! the same events, and must do the same again.

use lockstep_engine::record::Replay;
use std::io::BufRead;

/// Plays a recording to its end; how many events the shard and the node took. A last line without
/// its end was being written when the daemon was killed, and is left out.
///
/// # Errors
/// The number of the line that cannot be read or brings other actions than were recorded, and why.
pub fn play(mut recording: impl BufRead) -> Result<(u64, u64), String> {
    let mut machines = Replay::default();
    let mut text = String::new();
    for number in 1u64.. {
        text.clear();
        recording
            .read_line(&mut text)
            .map_err(|error| format!("line {number}: {error}"))?;
        let Some(line) = text.strip_suffix('\n') else {
            break;
        };
        serde_json::from_str(line)
            .map_err(|error| error.to_string())
            .and_then(|line| machines.line(line).map_err(|error| error.to_string()))
            .map_err(|why| format!("line {number}: {why}"))?;
    }
    Ok(machines.events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::pool::PoolClass;
    use lockstep_engine::record::{Line, ShardEvent, digest};

    fn text(line: &Line) -> String {
        serde_json::to_string(line).expect("a line is plain data") + "\n"
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_other_actions_are_found() {
        let classes = vec![PoolClass {
            slots: 4,
            slot_bytes: 65_536,
        }];
        let tick = |actions: u32| Line::ToShard {
            now: std::time::Duration::from_secs(1),
            event: ShardEvent::Tick,
            actions,
        };
        let nothing = digest(&[] as &[u8]);
        let begin = text(&Line::Shard {
            classes,
            seed: [1; 32],
        });
        let good = begin.clone() + &text(&tick(nothing)) + "{\"ToShard\":{\"now\":";
        assert_eq!(play(good.as_bytes()), Ok((1, 0)));
        let bad = begin + &text(&tick(nothing + 1));
        let why = play(bad.as_bytes()).expect_err("the digest is another");
        assert!(why.starts_with("line 2: "), "{why}");
    }
}
