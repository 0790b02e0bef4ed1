//! Metrics of ports: what their drivers say, and what they do not.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use crate::base::PortId;
use crate::control::metrics::Everything;
use crate::control::metrics::family::{Family, Labels};
use crate::nic::{Counts, Report};

/// A count of every port: name, what it is, where it stands.
type Count = (&'static str, &'static str, fn(&Counts) -> u64);

const BYTES_PER_MEGABIT: u64 = 1_000_000 / 8;

const COUNTS: [Count; 8] = [
    ("port_frames_received", "Frames that the port has received", |counts| counts.frames_received),
    ("port_frames_sent", "Frames that the port has sent", |counts| counts.frames_sent),
    ("port_bytes_received", "Bytes of frames that the port has received", |counts| counts.bytes_received),
    ("port_bytes_sent", "Bytes of frames that the port has sent", |counts| counts.bytes_sent),
    ("port_missed", "Frames that the port lost because lanes did not take them in time; see port_reports", |counts| {
        counts.missed
    }),
    ("port_receive_errors", "Frames that arrived broken at the port", |counts| counts.receive_errors),
    ("port_transmit_errors", "Frames that the port could not send", |counts| counts.transmit_errors),
    ("port_no_buffer", "Times that the port had no buffer for a frame that had come", |counts| counts.no_buffer),
];

impl Everything {
    pub(super) fn encode_ports(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(reports) = &self.reports else { return Ok(()) };
        let ports: Vec<(Labels, Report)> = (0..)
            .map(PortId)
            .zip(&self.ports)
            .filter_map(|(port, name)| Some((vec![("port", name.clone())], reports.report(port)?)))
            .collect();
        let gauge = |help, value: &dyn Fn(&Report) -> u64| {
            Family::gauge(help, ports.iter().map(|(labels, report)| (labels.clone(), value(report))).collect())
        };
        for (name, help, value) in COUNTS {
            let values = ports.iter().map(|(labels, report)| (labels.clone(), value(&report.counts)));
            Family::counter(help, values.collect()).encode(name, encoder)?;
        }
        gauge("Whether the port has a link", &|report| report.link_is_up.into()).encode("port_link_up", encoder)?;
        let with = |labels: &Labels, more: Labels| [labels.clone(), more].concat();
        let megabits = |(labels, report): &(Labels, Report)| {
            Some((labels.clone(), u64::from(report.link_megabits?) * BYTES_PER_MEGABIT))
        };
        Family::gauge(
            "Bytes a second that the port's link carries, where the driver knows it",
            ports.iter().filter_map(megabits).collect(),
        )
        .encode("port_link_speed_bytes", encoder)?;
        let info = |(labels, report): &(Labels, Report)| {
            (with(labels, vec![("device", report.device.clone()), ("driver", report.driver.clone())]), 1)
        };
        Family::gauge("Which device the port is, and its driver", ports.iter().map(info).collect())
            .encode("port_device", encoder)?;
        let knows = |(labels, report): &(Labels, Report)| {
            (with(labels, vec![("statistic", "missed".to_owned())]), report.knows_missed().into())
        };
        let help = "Whether the port's driver counts this at all, so that its 0 means that there was none";
        Family::gauge(help, ports.iter().map(knows).collect()).encode("port_reports", encoder)?;
        let extended = ports.iter().flat_map(|(labels, report)| {
            report.extended.iter().map(|(name, value)| (with(labels, vec![("name", name.clone())]), *value))
        });
        Family::gauge("What the port's driver counts under names of its own", extended.collect())
            .encode("port_extended", encoder)
    }
}
