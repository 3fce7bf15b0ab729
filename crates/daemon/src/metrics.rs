//! The Prometheus text, made afresh for each scrape from what the shard counts and what the
//! status says. Labels are names from the configuration, never names that a stranger chose.

use lockstep_api::node::MaintenanceState;
use lockstep_api::status::{Level, PathStatus, Status};
use lockstep_api::volume::Volume;
use lockstep_engine::counters::{Counters, LATENCY_BOUNDS_US, Latencies, VolumeCounters};
use lockstep_mirror::volume::Counts;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

/// Every state of a volume, so that a state that was left goes to 0 instead of going stale.
pub(crate) const STATES: [&str; 10] = [
    "provisioning",
    "opening",
    "waiting",
    "serving",
    "serving-alone",
    "resyncing",
    "following",
    "unavailable",
    "split-brain",
    "failed",
];

/// The text of one scrape.
pub(crate) fn text(status: &Status, counters: &Counters) -> Vec<u8> {
    let mut families = node(status, counters);
    families.extend(partner(status));
    families.extend(volumes(&status.volumes));
    families.extend(commands(status, counters));
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&families, &mut text)
        .expect("names are fixed and families not empty");
    text
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn node(status: &Status, counters: &Counters) -> Vec<MetricFamily> {
    let number = status.node.to_string();
    let info: Labels<'_> = &[
        ("version", &status.version),
        ("cluster", &status.cluster),
        ("node", &number),
        ("name", &status.name),
    ];
    let health = match status.level {
        Level::Ok => 0.0,
        Level::Degraded => 1.0,
        Level::Critical => 2.0,
    };
    let maintenance = match status.maintenance {
        MaintenanceState::Off => 0.0,
        MaintenanceState::Entering => 1.0,
        MaintenanceState::On => 2.0,
    };
    vec![
        gauge(
            "lockstep_info",
            "What runs here; always 1.",
            vec![(info, 1.0)],
        ),
        gauge(
            "lockstep_health",
            "0 ok, 1 degraded, 2 critical: the verdict of lockstep status.",
            vec![(&[], health)],
        ),
        gauge(
            "lockstep_uptime_seconds",
            "Since the daemon started.",
            vec![(&[], float(status.uptime_s))],
        ),
        gauge(
            "lockstep_node_maintenance",
            "0 serves as ever, 1 hands its volumes over, 2 in maintenance.",
            vec![(&[], maintenance)],
        ),
        gauge(
            "lockstep_pool_generation",
            "Committed changes of the pool configuration.",
            vec![(&[], float(status.generation))],
        ),
        gauge(
            "lockstep_sessions",
            "iSCSI sessions of this node.",
            vec![(&[], f64::from(counters.sessions))],
        ),
        gauge(
            "lockstep_connections",
            "iSCSI connections, logged in or not.",
            vec![(&[], f64::from(counters.connections))],
        ),
        gauge(
            "lockstep_data_channels",
            "Data connections to the partner.",
            vec![(&[], f64::from(counters.channels))],
        ),
        gauge(
            "lockstep_buffers_in_use",
            "Buffers for data on its way.",
            vec![(&[], f64::from(counters.buffers))],
        ),
    ]
}

fn partner(status: &Status) -> Vec<MetricFamily> {
    let partner = &status.partner;
    if partner.node == 0 {
        return Vec::new();
    }
    let labels: Vec<[(&str, &str); 3]> = partner
        .paths
        .iter()
        .map(|path| {
            [
                ("kind", path.kind.as_str()),
                ("local", &path.local),
                ("remote", &path.remote),
            ]
        })
        .collect();
    let up = labels
        .iter()
        .zip(&partner.paths)
        .map(|(l, path)| (l.as_slice(), truth(path.up)));
    let each = |value: fn(&PathStatus) -> f64| -> Vec<(Labels<'_>, f64)> {
        let values = partner.paths.iter().map(value);
        labels.iter().map(|it| it.as_slice()).zip(values).collect()
    };
    let count = |name, help, value: fn(&PathStatus) -> u64| {
        let metrics = labels.iter().zip(&partner.paths).map(|(labels, path)| {
            let mut metric = labelled(labels);
            let mut counter = Counter::default();
            counter.set_value(float(value(path)));
            metric.set_counter(counter);
            metric
        });
        family(name, help, MetricType::COUNTER, metrics.collect())
    };
    // Never heard: as old as this daemon.
    let age = partner.heartbeat_age_ms.unwrap_or(status.uptime_s * 1000);
    vec![
        gauge(
            "lockstep_partner_up",
            "Whether the partner's heartbeats come.",
            vec![(&[], truth(partner.up))],
        ),
        gauge(
            "lockstep_heartbeat_age_seconds",
            "Since the newest heartbeat on any path.",
            vec![(&[], float(age) / 1000.0)],
        ),
        gauge(
            "lockstep_path_up",
            "Whether a path to the partner works.",
            up.collect(),
        ),
        gauge(
            "lockstep_path_data_connections",
            "Data connections over a path.",
            each(|path| f64::from(path.channels)),
        ),
        gauge(
            "lockstep_path_round_trip_seconds",
            "From a heartbeat to its acknowledgement, the last time.",
            each(|path| float(path.round_trip_us.unwrap_or(0)) / 1_000_000.0),
        ),
        gauge(
            "lockstep_path_frames_pass",
            "Whether full-size frames pass; 1 also where that is not known.",
            each(|path| truth(path.mtu.as_ref().is_none_or(|it| it.warning.is_empty()))),
        ),
        count(
            "lockstep_path_sent_bytes_total",
            "Bytes sent over a path.",
            |path| path.sent_bytes,
        ),
        count(
            "lockstep_path_received_bytes_total",
            "Bytes received over a path.",
            |path| path.received_bytes,
        ),
        count(
            "lockstep_path_refused_frames_total",
            "Frames that came damaged, or were not the partner's.",
            |path| path.refused_frames,
        ),
        count(
            "lockstep_path_given_up_total",
            "Data connections on which nothing came any more though the partner lived.",
            |path| path.given_up,
        ),
        counter(
            "lockstep_certificates_total",
            "Death certificates of the partner's runs.",
            vec![
                (&[("outcome", "taken")], partner.certificates_taken),
                (&[("outcome", "refused")], partner.certificates_refused),
            ],
        ),
    ]
}

fn volumes(volumes: &[Volume]) -> Vec<MetricFamily> {
    let each = |value: fn(&Volume) -> f64| -> Vec<(Vec<(&str, &str)>, f64)> {
        volumes
            .iter()
            .map(|volume| (vec![("volume", volume.name.as_str())], value(volume)))
            .collect()
    };
    let family = |name, help, values: Vec<(Vec<(&str, &str)>, f64)>| {
        gauge(
            name,
            help,
            values
                .iter()
                .map(|(labels, value)| (labels.as_slice(), *value))
                .collect(),
        )
    };
    let states = volumes.iter().flat_map(|volume| {
        STATES.map(|state| {
            (
                vec![("volume", volume.name.as_str()), ("state", state)],
                truth(volume.state == state),
            )
        })
    });
    let members = volumes.iter().flat_map(|volume| {
        volume.replicas.iter().map(|replica| {
            let node = if replica.node == 1 { "1" } else { "2" };
            let member = truth(volume.members.contains(&replica.node));
            (
                vec![("volume", volume.name.as_str()), ("node", node)],
                member,
            )
        })
    });
    let slow = volumes.iter().flat_map(|volume| {
        ["write", "flush", "partner", "partner-flush"].map(|part| {
            let is_slow = volume.slow.iter().any(|it| it.part == part);
            (
                vec![("volume", volume.name.as_str()), ("part", part)],
                truth(is_slow),
            )
        })
    });
    vec![
        family(
            "lockstep_volume_size_bytes",
            "Exported size.",
            each(|v| float(v.size)),
        ),
        family(
            "lockstep_volume_epoch",
            "Number of the configuration in force.",
            each(|v| float(v.epoch)),
        ),
        family(
            "lockstep_volume_state",
            "1 for the state that it is in.",
            states.collect(),
        ),
        family(
            "lockstep_volume_member",
            "Whether that node holds every acknowledged write.",
            members.collect(),
        ),
        family(
            "lockstep_volume_dirty_bytes",
            "What the partner's copy may lack.",
            each(|v| float(v.dirty)),
        ),
        family(
            "lockstep_volume_forced",
            "Whether an operator's decision is in force under which writes may have been lost.",
            each(|v| truth(v.forced.is_some())),
        ),
        family(
            "lockstep_volume_resync_done_bytes",
            "Compared or copied in the resync that runs.",
            each(|v| v.resync.map_or(0.0, |p| float(p.done))),
        ),
        family(
            "lockstep_volume_resync_total_bytes",
            "To be compared or copied in it.",
            each(|v| v.resync.map_or(0.0, |p| float(p.total))),
        ),
        family(
            "lockstep_volume_resync_limit_bytes",
            "Bytes a second that the resync is held to; 0: not held back.",
            each(|v| v.pace.as_ref().and_then(|p| p.limit).map_or(0.0, float)),
        ),
        family(
            "lockstep_volume_resync_rate_bytes",
            "Bytes a second that the resync does.",
            each(|v| v.resync.map_or(0.0, |p| float(p.rate))),
        ),
        family(
            "lockstep_volume_calm_latency_seconds",
            "95th percentile of reads and writes without a resync; 0: no resync runs, or not known.",
            each(|v| v.pace.as_ref().map_or(0.0, |p| float(p.calm_us) / 1e6)),
        ),
        family(
            "lockstep_volume_resync_latency_seconds",
            "95th percentile of reads and writes while the resync runs; 0: none runs, or not known.",
            each(|v| v.pace.as_ref().map_or(0.0, |p| float(p.under_way_us) / 1e6)),
        ),
        family(
            "lockstep_volume_slow",
            "Whether a part is ten times slower than usual since half a minute.",
            slow.collect(),
        ),
        family(
            "lockstep_volume_sessions",
            "iSCSI sessions on this node.",
            each(|v| f64::from(v.sessions)),
        ),
    ]
}

fn commands(status: &Status, counters: &Counters) -> Vec<MetricFamily> {
    let named: Vec<(&str, &VolumeCounters, &Counts)> = counters
        .volumes
        .iter()
        .filter_map(|(id, counters, path)| {
            let uuid = crate::uuid::format(id.0);
            let volume = status.volumes.iter().find(|volume| volume.uuid == uuid)?;
            Some((volume.name.as_str(), counters, &path.counts))
        })
        .collect();
    let total = |name, help, value: fn(&VolumeCounters, &Counts) -> u64| {
        let metrics = named.iter().map(|(volume, counters, counts)| {
            let mut metric = labelled(&[("volume", volume)]);
            let mut counter = Counter::default();
            counter.set_value(float(value(counters, counts)));
            metric.set_counter(counter);
            metric
        });
        family(name, help, MetricType::COUNTER, metrics.collect())
    };
    let latencies = named.iter().flat_map(|(volume, counters, _)| {
        let kinds = [
            ("read", counters.reads),
            ("write", counters.writes),
            ("flush", counters.flushes),
        ];
        kinds.map(|(kind, latencies)| {
            let mut metric = labelled(&[("volume", volume), ("kind", kind)]);
            metric.set_histogram(histogram(&latencies));
            metric
        })
    });
    vec![
        total(
            "lockstep_volume_read_bytes_total",
            "Read by initiators.",
            |c, _| c.read_bytes,
        ),
        total(
            "lockstep_volume_written_bytes_total",
            "Written by initiators.",
            |c, _| c.written_bytes,
        ),
        total(
            "lockstep_volume_failed_commands_total",
            "Commands that ended with CHECK CONDITION or BUSY.",
            |c, _| c.failed,
        ),
        total(
            "lockstep_volume_resync_compared_bytes_total",
            "Compared with the partner's copy in resyncs from this node.",
            |_, c| c.resync_compared,
        ),
        total(
            "lockstep_volume_resync_copied_bytes_total",
            "Of these, different and copied to the partner.",
            |_, c| c.resync_copied,
        ),
        total(
            "lockstep_volume_full_resyncs_total",
            "Resyncs from this node that had to compare all of the volume.",
            |_, c| c.full_resyncs,
        ),
        total(
            "lockstep_volume_proxied_reads_total",
            "Reads of this node's initiators that the partner served, because this node was no member.",
            |_, c| c.proxied_reads,
        ),
        total(
            "lockstep_volume_proxied_writes_total",
            "Writes and other operations that the partner carried out for them.",
            |_, c| c.proxied_writes,
        ),
        total(
            "lockstep_volume_resync_restarts_total",
            "Resyncs from this node that stood still and were begun anew.",
            |_, c| c.resync_restarts,
        ),
        total(
            "lockstep_volume_unreadable_total",
            "Reads that found blocks unreadable on this node while the partner held them.",
            |_, c| c.unreadable,
        ),
        total(
            "lockstep_volume_repaired_total",
            "Times that blocks of this node's copy were rewritten from the partner's.",
            |_, c| c.repaired,
        ),
        total(
            "lockstep_volume_unreadable_lost_total",
            "Reads that no copy could answer.",
            |_, c| c.unreadable_lost,
        ),
        total(
            "lockstep_volume_verify_compared_bytes_total",
            "Compared by verifications from this node.",
            |_, c| c.verify_compared,
        ),
        total(
            "lockstep_volume_verify_differing_total",
            "Pieces of 64 KiB that verifications from this node found different.",
            |_, c| c.verify_differing,
        ),
        family(
            "lockstep_volume_command_seconds",
            "From a command's arrival to its answer.",
            MetricType::HISTOGRAM,
            latencies.collect(),
        ),
    ]
}

fn histogram(latencies: &Latencies) -> Histogram {
    let mut histogram = Histogram::default();
    let mut below = 0;
    let bounds = LATENCY_BOUNDS_US
        .iter()
        .map(|&us| float(us) / 1e6)
        .chain([f64::INFINITY]);
    let buckets = bounds.zip(latencies.buckets).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(latencies.count());
    histogram.set_sample_sum(float(latencies.sum_us) / 1e6);
    histogram
}

fn gauge(name: &str, help: &str, values: Vec<(Labels<'_>, f64)>) -> MetricFamily {
    let metrics = values.into_iter().map(|(labels, value)| {
        let mut metric = labelled(labels);
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, MetricType::GAUGE, metrics.collect())
}

fn counter(name: &str, help: &str, values: Vec<(Labels<'_>, u64)>) -> MetricFamily {
    let metrics = values.into_iter().map(|(labels, value)| {
        let mut metric = labelled(labels);
        let mut counter = Counter::default();
        counter.set_value(float(value));
        metric.set_counter(counter);
        metric
    });
    family(name, help, MetricType::COUNTER, metrics.collect())
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// Prometheus knows only floating point; sums above 2^53 lose their last digits.
#[expect(clippy::cast_precision_loss, reason = "that is what the format holds")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_mirror::control::{CacheMode, Incarnation, NodeId, VolumeId, VolumeSpec};
    use std::time::Duration;

    #[test]
    fn a_scrape_shows_counts_latencies_and_state() {
        let volume = Volume {
            name: "vm1".into(),
            uuid: crate::uuid::format(7),
            state: "serving".into(),
            members: vec![1],
            dirty: 65_536,
            ..Volume::default()
        };
        let status = Status {
            node: 1,
            volumes: vec![volume],
            ..Status::default()
        };
        let mut volume = VolumeCounters {
            read_bytes: 4096,
            ..VolumeCounters::default()
        };
        volume.reads.add(Duration::from_micros(100));
        let mut counters = Counters {
            sessions: 2,
            ..Counters::default()
        };
        let spec = VolumeSpec {
            id: VolumeId(7),
            size: 1 << 20,
            block_size: 512,
            cache: CacheMode::None,
            me: NodeId(1),
            partner: None,
            incarnation: Incarnation(1),
        };
        let mut path = lockstep_mirror::volume::Volume::new(spec).status();
        path.counts.resync_copied = 65_536;
        path.counts.full_resyncs = 1;
        counters.volumes.push((VolumeId(7), volume, path));
        let text = String::from_utf8(text(&status, &counters)).unwrap();
        for line in [
            "lockstep_sessions 2",
            "lockstep_volume_read_bytes_total{volume=\"vm1\"} 4096",
            "lockstep_volume_resync_copied_bytes_total{volume=\"vm1\"} 65536",
            "lockstep_volume_full_resyncs_total{volume=\"vm1\"} 1",
            "lockstep_volume_command_seconds_bucket{kind=\"read\",volume=\"vm1\",le=\"0.000064\"} \
            0",
            "lockstep_volume_command_seconds_bucket{kind=\"read\",volume=\"vm1\",le=\"0.000128\"} \
            1",
            "lockstep_volume_command_seconds_count{kind=\"read\",volume=\"vm1\"} 1",
            "lockstep_volume_state{state=\"serving\",volume=\"vm1\"} 1",
            "lockstep_volume_state{state=\"failed\",volume=\"vm1\"} 0",
            "lockstep_volume_dirty_bytes{volume=\"vm1\"} 65536",
        ] {
            assert!(
                text.lines().any(|found| sorted(found) == sorted(line)),
                "{line} in:\n{text}"
            );
        }
        assert!(!text.contains("lockstep_partner_up"));
    }

    /// A line with its labels in one order.
    fn sorted(line: &str) -> String {
        let Some((name, rest)) = line.split_once('{') else {
            return line.into();
        };
        let (labels, value) = rest.split_once('}').unwrap();
        let mut labels: Vec<&str> = labels.split(',').collect();
        labels.sort_unstable();
        format!("{name}{{{}}}{value}", labels.join(","))
    }
}
