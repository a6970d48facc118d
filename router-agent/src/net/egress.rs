//! The program at the ingress of all dataplane ends, by a block: a set of TC filters that many
//! qdiscs share.
//!
//! For each program attached to a device by itself, and for each taken off again, the kernel waits
//! until no processor can still see what was there before. A qdisc that takes part in a block comes
//! and goes without that, and the program is attached once.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryFutureExt as _, future};
use rtnetlink::{
    Handle,
    packet_core::{
        DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
        NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{
            TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
            TcOption,
        },
    },
};

use super::{
    Netlink,
    filters::{info, program_of},
    requests::Request,
    tunnels::all_done,
};

/// The block, in each network namespace. A number such as people do not choose.
const BLOCK: u32 = 0x5254_4752;
/// TCA_INGRESS_BLOCK.
const INGRESS_BLOCK: u16 = 13;
const PRIORITY: u16 = 1;
const HANDLE: u32 = 1;

/// The TC program that encapsulates.
pub struct EgressProgram {
    /// Under this name `tc filter show` lists it.
    pub name: &'static str,
    /// The kernel's number for it.
    pub id: u32,
    pub fd: OwnedFd,
}

/// Makes an interface take part in the block.
pub(super) fn join(ifindex: u32, name: &str) -> Request {
    let mut message = TcMessage::default();
    message.header.index = ifindex.cast_signed();
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = TcHandle {
        major: TcHandle::INGRESS.major,
        minor: 0,
    };
    // Not clsact: that brings a second block, for the egress, which the kernel would have to search
    // its list of all such blocks for.
    message.attributes = vec![
        TcAttribute::Kind("ingress".to_owned()),
        TcAttribute::Other(DefaultNla::new(INGRESS_BLOCK, BLOCK.to_ne_bytes().to_vec())),
    ];
    Request::new(
        format!("add an ingress qdisc to interface {name}"),
        RouteNetlinkMessage::NewQueueDiscipline(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

impl Netlink {
    /// Makes dataplane ends, by index and name, take part in the block; the positions of those that
    /// did not yet. One that has gone meanwhile is passed over.
    pub async fn ensure_joined(&self, ends: &[(u32, String)]) -> Result<Vec<usize>> {
        let requests = ends.iter().map(|(ifindex, name)| join(*ifindex, name));
        let answers = self.requests.execute(requests.collect()).await?;
        let mut joined = Vec::new();
        for (position, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(()) => joined.push(position),
                Err(refusal) => match refusal.error.raw_os_error() {
                    Some(libc::EEXIST | libc::ENODEV) => {}
                    _ => return Err(refusal.into()),
                },
            }
        }
        Ok(joined)
    }

    /// Makes `program` run on what every dataplane end receives; whether it did not yet. There must be
    /// one: the block goes with the last of them. Those made later have the program at once.
    ///
    /// A filter of others in the block is an error.
    pub async fn ensure_egress(&self, program: &EgressProgram) -> Result<bool> {
        let filters = self.filters().await?;
        if filters.iter().any(|filter| !is_ours(filter, program.name)) {
            bail!(
                "TC block {BLOCK} has a filter of others, and router-agent needs it for itself; \
                 remove it (`tc filter show block {BLOCK}`)"
            );
        }
        if filters
            .iter()
            .any(|filter| program_of(filter) == Some(program.id))
        {
            return Ok(false);
        }
        let request = Request::new(
            format!("attach {} to TC block {BLOCK}", program.name),
            RouteNetlinkMessage::NewTrafficFilter(filter(program)),
            // Replaces the one that an agent of another build left.
            NLM_F_CREATE,
        );
        all_done(self.requests.execute(vec![request]).await?)?;
        Ok(true)
    }

    /// The filters of the block, none if there is no such block.
    async fn filters(&self) -> Result<Vec<TcMessage>> {
        let message = TcMessage::from_parts(header(), Vec::new());
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetTrafficFilter(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let cannot = || format!("cannot list the filters of TC block {BLOCK}");
        let ask = |mut handle: Handle| {
            future::ready(handle.request(request))
                .map_ok(|answers| answers.map(Ok))
                .try_flatten_stream()
        };
        let mut filters = Vec::new();
        for answer in self.list(ask).await.with_context(cannot)? {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
                    filters.push(filter);
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()).with_context(cannot),
                _ => {}
            }
        }
        Ok(filters)
    }
}

/// Of the block, in an interface's place.
fn header() -> TcHeader {
    TcHeader {
        index: TcHeader::TCM_IFINDEX_MAGIC_BLOCK.cast_signed(),
        parent: BLOCK.into(),
        ..TcHeader::default()
    }
}

fn filter(program: &EgressProgram) -> TcMessage {
    let header = TcHeader {
        handle: HANDLE.into(),
        info: info(PRIORITY),
        ..header()
    };
    let options = [
        TcFilterBpfOption::ProgFd(program.fd.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(program.name.to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.map(TcOption::Bpf).into()),
    ];
    TcMessage::from_parts(header, attributes)
}

/// Whether a filter of the block is [`filter`], perhaps of an agent before this one.
fn is_ours(filter: &TcMessage, program: &str) -> bool {
    let is_bpf = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == TcFilterBpf::KIND);
    let has_name = |attribute: &TcAttribute| {
        let TcAttribute::Options(options) = attribute else {
            return false;
        };
        options.iter().any(|option| {
            matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name == program)
        })
    };
    // The kernel lists each priority before the filters that have it, without a handle.
    let is_priority = filter.header.handle == TcHandle::UNSPEC;
    filter.attributes.iter().any(is_bpf) && (is_priority || filter.attributes.iter().any(has_name))
}
