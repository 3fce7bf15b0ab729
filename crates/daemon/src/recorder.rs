//! `lockstep daemon --record FILE`: every event of `Node` and `Shard` with a digest of what they
//! wanted done, one JSON line each. The simulator plays such a file again. It holds names and
//! secrets, but no block of any volume.

use lockstep_engine::interface::{Action, Event};
use lockstep_engine::node_interface::{NodeAction, NodeEvent, NodeSettings};
use lockstep_engine::pool::PoolClass;
use lockstep_engine::record::{Line, OwnedNodeEvent, ShardEvent, digest};
use lockstep_mirror::control::Time;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a crash may cost at the end of a recording.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// Writes a recording; its copies write the same one.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Tape>>);

#[derive(Debug)]
struct Tape {
    file: BufWriter<File>,
    flushed: Time,
    /// A line could not be written: what follows would not play.
    broken: bool,
}

impl Recorder {
    /// Begins a recording, readable by this user alone.
    ///
    /// # Errors
    /// The file cannot be written, or is there already.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self(Arc::new(Mutex::new(Tape {
            file: BufWriter::new(file),
            flushed: Time::ZERO,
            broken: false,
        }))))
    }

    /// A shard was made.
    pub fn shard(&self, classes: &[PoolClass], seed: [u8; 32]) {
        let classes = classes.to_vec();
        self.note(Time::ZERO, &Line::Shard { classes, seed });
    }

    /// A shard took an event; `actions` are those that it brought.
    pub fn to_shard(&self, now: Time, event: ShardEvent, actions: &[Action]) {
        let actions = digest(actions);
        self.note(
            now,
            &Line::ToShard {
                now,
                event,
                actions,
            },
        );
    }

    /// `Node` was made.
    pub fn node(&self, settings: &NodeSettings, seed: [u8; 32], now: Time) {
        let settings = Box::new(settings.clone());
        self.note(
            now,
            &Line::Node {
                settings,
                seed,
                now,
            },
        );
    }

    /// `Node` took an event; `actions` are those that it brought.
    pub fn to_node(&self, now: Time, event: OwnedNodeEvent, actions: &[NodeAction]) {
        let actions = digest(actions);
        self.note(
            now,
            &Line::ToNode {
                now,
                event,
                actions,
            },
        );
    }

    fn note(&self, now: Time, line: &Line) {
        let mut tape = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tape.broken {
            return;
        }
        let written = tape.write(line, now);
        if let Err(error) = written {
            tracing::error!(%error, "the recording ends here");
            tape.broken = true;
        }
    }
}

impl Tape {
    fn write(&mut self, line: &Line, now: Time) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, line).map_err(io::Error::from)?;
        self.file.write_all(b"\n")?;
        if now >= self.flushed + FLUSH_EVERY {
            self.flushed = now;
            self.file.flush()?;
        }
        Ok(())
    }
}

/// An event as it is noted, taken before the shard takes it.
#[must_use]
pub fn of_shard(event: &Event<'_>) -> ShardEvent {
    event.into()
}

/// An event as it is noted, taken before `Node` takes it.
#[must_use]
pub fn of_node(event: &NodeEvent<'_>) -> OwnedNodeEvent {
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::node::Node;
    use lockstep_engine::record::Replay;
    use lockstep_engine::shard::Shard;
    use lockstep_mirror::control::{Incarnation, NodeId};
    use lockstep_mirror::lease::Timing;

    #[test]
    fn what_is_recorded_plays_to_the_same_actions() {
        let path = std::env::temp_dir().join(format!("lockstep-tape-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let recorder = Recorder::create(&path).unwrap();
        let classes = crate::pool_memory::classes(64 << 20);
        recorder.shard(&classes, [3; 32]);
        let mut shard = Shard::new(&classes, [3; 32]);
        let settings = NodeSettings {
            node: NodeId(1),
            partner: None,
            cluster: u128::MAX - 5,
            secret: Box::default(),
            incarnation: Incarnation(u64::MAX),
            portals: 1,
            partner_portals: 0,
            proxy: true,
            timing: Timing::default(),
            acceptor: None,
            pool: None,
            maintenance: false,
        };
        recorder.node(&settings, [4; 32], Time::ZERO);
        let mut node = Node::new(settings, [4; 32], Time::ZERO);
        for step in 0..50 {
            let now = Duration::from_millis(100 * step);
            let mut actions = Vec::new();
            shard.handle(now, Event::Tick, &mut actions);
            recorder.to_shard(now, of_shard(&Event::Tick), &actions);
            let mut actions = Vec::new();
            let event = NodeEvent::Stamp {
                oldest: now,
                wall: 0,
            };
            let noted = of_node(&event);
            node.handle(now, event, &mut actions);
            recorder.to_node(now, noted, &actions);
        }
        drop(recorder);
        let mut replay = Replay::default();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            replay.line(serde_json::from_str(line).unwrap()).unwrap();
        }
        assert_eq!(replay.events, (50, 50));
        assert!(
            Recorder::create(&path).is_err(),
            "a recording is not overwritten"
        );
        std::fs::remove_file(path).unwrap();
    }
}
