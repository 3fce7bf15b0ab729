//! The end of a round: everything is read through each path and from each image, and compared with
//! what was done.

use crate::cluster::Cluster;
use crate::history::{Action, Clock, End, History, Record, stamps_of};
use crate::network::Machine;
use crate::store::SECTOR;
use anyhow::{Context, Result, bail};
use lockstep_initiator::client::Client;
use lockstep_initiator::core::command::Command;
use lockstep_sim::ledger::Stamp;

/// What a history that is not linearizable is called.
pub const NO_DISK: &str = "no disk would have answered so";
/// Sectors read with one command.
const CHUNK: u64 = 512;
/// Sessions of the reader.
const READER: u8 = 200;
/// Readers of images in the history, beside initiators.
const IMAGES: usize = 100;

/// Reads all of the volume through a node (0 or 1), after a flush.
///
/// # Errors
/// The node does not serve.
pub fn through(cluster: &Cluster, node: usize, clock: &Clock) -> Result<Vec<Record>> {
    let path = cluster.path(node, READER);
    let mut client = Client::login(path.address, path.parameters)
        .with_context(|| format!("nobody can log in to node{} after the faults", node + 1))?;
    let flushed = client.run_past_attentions(&Command::flush(0))?;
    if flushed.status != 0 {
        bail!(
            "node{} answered SYNCHRONIZE CACHE with status {:#x}",
            node + 1,
            flushed.status
        );
    }
    let sectors = cluster.settings.size / SECTOR as u64;
    let mut records = Vec::new();
    for first in (0..sectors).step_by(usize::try_from(CHUNK).expect("small")) {
        let count = CHUNK.min(sectors - first);
        let unit = cluster.settings.unit();
        let blocks = u32::try_from(count / unit).expect("small");
        let bytes = u32::try_from(count * SECTOR as u64).expect("small");
        let began = clock.now();
        let command = Command::read(0, first / unit, blocks, bytes);
        let reply = client.run_past_attentions(&command)?;
        if reply.status != 0 {
            bail!(
                "node{} answered a read at {first} with status {:#x}",
                node + 1,
                reply.status
            );
        }
        records.push(Record {
            client: usize::from(READER),
            first,
            count,
            action: Action::Read(stamps_of(first, &reply.data)),
            began,
            end: End::Good(clock.now()),
            path: Some(node),
            attempts: 1,
        });
    }
    client.logout()?;
    Ok(records)
}

/// Reads both images from the disks, past the daemons. They must be equal.
///
/// # Errors
/// They are not, or are not there.
pub fn images(cluster: &Cluster, clock: &Clock) -> Result<Vec<Record>> {
    let size = usize::try_from(cluster.settings.size).expect("64 bits");
    let mut records = Vec::new();
    let images = [cluster.image(0)?, cluster.image(1)?];
    let mut bytes = images.iter().map(|image| &image[..size.min(image.len())]);
    let (one, two) = (
        bytes.next().unwrap_or_default(),
        bytes.next().unwrap_or_default(),
    );
    if one != two {
        let sectors = one.chunks(SECTOR).zip(two.chunks(SECTOR)).zip(0..);
        let differ: Vec<u64> = sectors
            .filter(|((one, two), _)| one != two)
            .map(|(_, at)| at)
            .collect();
        bail!(
            "the images differ in {} sectors, first in {:?}",
            differ.len(),
            &differ[..differ.len().min(8)]
        );
    }
    for node in 0..2 {
        records.push(image(cluster, node, clock)?);
    }
    Ok(records)
}

/// Reads one image from its disk.
///
/// # Errors
/// It is not there.
pub fn image(cluster: &Cluster, node: usize, clock: &Clock) -> Result<Record> {
    let began = clock.now();
    let size = usize::try_from(cluster.settings.size).expect("64 bits");
    let image = cluster.image(node)?;
    let stamps = stamps_of(
        0,
        image
            .get(..size)
            .context("an image is shorter than the volume")?,
    );
    Ok(Record {
        client: IMAGES + node,
        first: 0,
        count: stamps.len() as u64,
        action: Action::Read(stamps),
        began,
        end: End::Good(clock.now()),
        path: Some(node),
        attempts: 1,
    })
}

/// Everything through both paths and from both images.
///
/// # Errors
/// A node does not serve, the images differ, or no disk would have answered so.
pub fn everything(cluster: &Cluster, history: &mut History, clock: &Clock) -> Result<()> {
    for node in 0..2 {
        history.add(through(cluster, node, clock)?);
    }
    let records = images(cluster, clock)?;
    judge(history, records)
}

/// After an orderly stop of both nodes the power is cut: what is left must be everything.
///
/// # Errors
/// It is not.
pub fn after_stop(cluster: &mut Cluster, history: &mut History, clock: &Clock) -> Result<()> {
    for node in 0..2 {
        cluster.process(Machine::node(node)).ask_to_stop();
    }
    for node in 0..2 {
        cluster.process(Machine::node(node)).wait_stopped()?;
    }
    for node in 0..2 {
        let disk = cluster.disk(Machine::node(node));
        disk.switch_off();
        disk.switch_on()?;
    }
    let records =
        images(cluster, clock).context("after an orderly stop of both nodes and a power cut")?;
    judge(history, records)
}

/// Whether one disk could have answered so; the last record is a read of everything.
///
/// # Errors
/// It could not.
pub fn judge(history: &mut History, records: Vec<Record>) -> Result<()> {
    let now: Vec<Stamp> = match records.last().map(|record| &record.action) {
        Some(Action::Read(stamps)) => stamps.clone(),
        _ => Vec::new(),
    };
    history.add(records);
    let found = history.check(&now);
    if !found.is_empty() {
        bail!("{NO_DISK}:\n{}", found.join("\n"));
    }
    Ok(())
}
