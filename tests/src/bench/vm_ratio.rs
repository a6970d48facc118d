//! Our tunnel beside the kernel's own on the same packets: decapsulate and forward. Needs a kernel
//! with `ip_gre`, as Debian's in a guest.

use anyhow::Result;

use super::{
    live::{self, Arguments, Subject},
    rig::{Reach, Router},
};

const SUBJECTS: [Subject; 6] = [
    Subject("ip_gre, forwarded", Router::Linux, Reach::Sink),
    Subject(
        "router, forwarded by XDP",
        Router::OursInTransit,
        Reach::Sink,
    ),
    Subject("router, forwarded by the stack", Router::Ours, Reach::Sink),
    Subject("ip_gre, no route behind it", Router::Linux, Reach::Device),
    Subject("router, no route behind it", Router::Ours, Reach::Device),
    Subject(
        "no tunnel, forwarded by the stack",
        Router::Stack,
        Reach::Sink,
    ),
];

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut report = live::measure("vm-ratio", &SUBJECTS, arguments)?;
    report
        .conditions
        .push("goal, for information: forwarded by XDP ≥ 3 × ip_gre, forwarded".into());
    report.publish()
}
