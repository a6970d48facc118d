//! Between LAN and tunnel by the kernel's routing tables, which those of a lab's router are.

use anyhow::Result;
use router_common::{
    bench::{Bench, HEADERS},
    gre::Format,
    net::ETH_P_IPV4,
};

use super::{FROM_LAN, INNER_PAYLOAD, Section, Subject, TO_LAN, decapsulation};
use crate::{
    bench::rig::ROUTER,
    forwarding::{self, FAR, HOST, from_host, packet, take_part},
    frames::Outer,
    kernel::Kernel,
};

/// Each packet asks the tables twice or three times: for the way back to its source, which must
/// exist, for its own, and into a tunnel for the outer packet's.
pub fn section() -> Result<Section> {
    let lab = forwarding::lab()?;
    let mut rows = lab.node(ROUTER).run(|| -> Result<_> {
        let mut subjects = [
            to_lan("tunnel to LAN, IPv4", Format::default())?,
            from_lan("LAN to tunnel, IPv4", Format::default())?,
            from_lan("LAN to tunnel, IPv4, keyed", Format::KEY)?,
        ];
        decapsulation(&mut subjects)
    })??;
    rows.retain(|row| row.name.contains("LAN"));
    Ok(Section {
        title: "transit, with FIB look-up".into(),
        relative_to: "pass".into(),
        rows,
    })
}

fn router(format: Format) -> Result<Kernel> {
    let mut kernel = Kernel::for_benchmark()?;
    take_part(&mut kernel, format)?;
    Ok(kernel)
}

fn to_lan(name: &str, format: Format) -> Result<Subject> {
    let frame = Outer::new(format).around(ETH_P_IPV4, &packet(FAR, HOST, INNER_PAYLOAD));
    let removed = i32::try_from(format.outer_length())?;
    Ok(subject(name, router(format)?, frame, removed, TO_LAN))
}

fn from_lan(name: &str, format: Format) -> Result<Subject> {
    let frame = from_host(ETH_P_IPV4, &packet(HOST, FAR, INNER_PAYLOAD));
    let added = i32::try_from(format.outer_length())?;
    Ok(subject(name, router(format)?, frame, -added, FROM_LAN))
}

fn subject(
    name: &str,
    kernel: Kernel,
    frame: Vec<u8>,
    removed: i32,
    program: &'static str,
) -> Subject {
    let mut headers = [0; HEADERS];
    headers.copy_from_slice(&frame[..HEADERS]);
    Subject {
        name: name.into(),
        kernel,
        frame,
        bench: Bench {
            headers,
            removed,
            number_offset: 0,
            first: 0,
            end: 1,
            next: 0,
            step: 1,
            ifindex: 0,
            padding: 0,
        },
        program,
    }
}
