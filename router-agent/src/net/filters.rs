//! What program a filter of traffic control runs.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcFilterBpfOption, TcHeader, TcMessage, TcOption},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::requests::LONGEST_ANSWER;

/// Ethernet types of all kinds.
const ETH_P_ALL: u16 = 3;

/// Where a filter is.
#[derive(Clone, Copy, Debug)]
pub struct FilterPlace {
    /// Index of the interface.
    pub ifindex: u32,
    /// As `tcm_parent`: the qdisc, or one of clsact's two places.
    pub parent: u32,
    pub priority: u16,
    pub handle: u32,
}

/// The kernel's number for the program of the one filter that can be there; none if there is no such
/// filter, qdisc or interface, or it runs no program. Of other filters nothing is asked: they may be of
/// kinds that we do not understand.
pub fn program_at(place: FilterPlace) -> io::Result<Option<u32>> {
    let FilterPlace {
        ifindex,
        parent,
        priority,
        handle,
    } = place;
    let header = TcHeader {
        index: ifindex.cast_signed(),
        parent: parent.into(),
        handle: handle.into(),
        info: info(priority),
        ..TcHeader::default()
    };
    let message = TcMessage::from_parts(header, Vec::new());
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetTrafficFilter(message));
    request.header.flags = NLM_F_REQUEST;
    match ask(request)?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
            Ok(program_of(&filter))
        }
        NetlinkPayload::Error(error) => {
            let error = error.to_io();
            match error.raw_os_error() {
                // net/sched/cls_api.c: no filter; no qdisc, or none of its filters; no interface.
                Some(libc::ENOENT | libc::EINVAL | libc::ENODEV) => Ok(None),
                _ => Err(error),
            }
        }
        other => Err(io::Error::other(format!(
            "an answer of another kind: {other:?}"
        ))),
    }
}

/// What `tcm_info` says of a filter.
pub(super) const fn info(priority: u16) -> u32 {
    (priority as u32) << 16 | ETH_P_ALL.to_be() as u32
}

/// The kernel's number for the program that a filter runs. What it lists for a priority runs none.
pub(super) fn program_of(filter: &TcMessage) -> Option<u32> {
    let options = filter.attributes.iter().find_map(|attribute| {
        let TcAttribute::Options(options) = attribute else {
            return None;
        };
        Some(options)
    })?;
    options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}

/// Over a socket in the network namespace of the calling thread.
fn ask(
    mut request: NetlinkMessage<RouteNetlinkMessage>,
) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    request.finalize();
    let mut datagram = vec![0; request.buffer_len()];
    request.serialize(&mut datagram);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&datagram, 0)?;
    let mut answer = Vec::with_capacity(LONGEST_ANSWER);
    socket.recv(&mut answer, 0)?;
    NetlinkMessage::deserialize(&answer).map_err(|error| io::Error::other(error.to_string()))
}
