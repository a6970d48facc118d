//! Hands on what the programs say of packets to the log of the agent, and tells them of what it wants to
//! hear.

use std::{fs, sync::Arc, time::Duration};

use anyhow::Result;
use router_common::log::{Gate, Matter, Subject};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::board::{Board, Facts};
use crate::{
    dataplane::{Dataplane, ProgramLog},
    logging::programs::{self, Headers, Names},
    maps::{InterfaceNames, KernelInterfaces},
};

/// Between two looks at how much was held back, as long as something is. When one finds nothing, there is
/// room for a record by then, with which the next looks begin.
const LOOK_INTERVAL: Duration = Duration::from_nanos(Gate::INTERVAL_NS);

/// Works until it is dropped. A log that cannot be read is no reason not to route.
pub(super) fn forward(
    dataplane: &Dataplane,
    board: &Arc<Board>,
) -> impl Future<Output = ()> + use<> {
    let log = dataplane.program_log();
    let board = Arc::clone(board);
    async move {
        let forwarding = async { Forwarder::new(log?, board)?.run().await };
        if let Err::<(), _>(error) = forwarding.await {
            warn!("the programs' part of the log is missing from now on: {error:#}");
        }
    }
}

struct Forwarder {
    log: ProgramLog,
    board: Arc<Board>,
    interfaces: KernelInterfaces,
    /// Of each matter, as it was last told.
    suppressed: [u64; Matter::ALL.len()],
}

impl Forwarder {
    /// What was held back before is not told again.
    fn new(log: ProgramLog, board: Arc<Board>) -> Result<Self> {
        let mut suppressed = [0; Matter::ALL.len()];
        for (matter, told) in Matter::ALL.into_iter().zip(&mut suppressed) {
            *told = log.suppressed(matter)?;
        }
        Ok(Self {
            log,
            board,
            interfaces: KernelInterfaces::open(),
            suppressed,
        })
    }

    async fn run(&mut self) -> Result<()> {
        let mut other_levels = self.board.facts().log.level.changes();
        self.choose();
        // None while there is nothing to expect. The agent before this one may have left no room for a record.
        let mut next_look = Some(Instant::now() + LOOK_INTERVAL);
        loop {
            tokio::select! {
                readable = self.log.readable() => {
                    readable?;
                    self.read();
                    next_look.get_or_insert_with(|| Instant::now() + LOOK_INTERVAL);
                }
                another = other_levels.changed() => {
                    another?;
                    self.choose();
                }
                () = sleep_until(next_look.unwrap_or_else(Instant::now)), if next_look.is_some() => {
                    next_look = self.look()?.then(|| Instant::now() + LOOK_INTERVAL);
                }
            }
        }
    }

    /// Has the programs speak of what the log wants.
    fn choose(&self) {
        for matter in Matter::ALL {
            self.log.open(matter, programs::is_wanted(matter));
        }
    }

    /// Reads all that there is. That is little: the programs' limits see to it.
    fn read(&mut self) {
        while let Some(record) = self.log.take() {
            let Some(matter) = Matter::from_number(record.matter) else {
                continue;
            };
            let interface = self.interfaces.name(record.ifindex);
            let names = Names {
                interface: interface.as_deref(),
                ..names(self.board.facts(), matter, record.subject)
            };
            let headers =
                if tells_of_its_packet(matter) && interface.as_deref().is_some_and(has_ethernet) {
                    Headers::of(record.head())
                } else {
                    Headers::default()
                };
            programs::tell(matter, &names, &headers);
        }
    }

    /// Tells what was held back since the last look; whether there was anything.
    fn look(&mut self) -> Result<bool> {
        let mut any = false;
        for (matter, told) in Matter::ALL.into_iter().zip(&mut self.suppressed) {
            let suppressed = self.log.suppressed(matter)?;
            if suppressed > *told {
                programs::tell_suppressed(matter, suppressed - *told);
                *told = suppressed;
                any = true;
            }
        }
        Ok(any)
    }
}

/// A lease is not about the packet that it came with.
fn tells_of_its_packet(matter: Matter) -> bool {
    !matches!(matter, Matter::LeaseGranted | Matter::LeaseRenewed)
}

/// Whether its packets are known to begin with an Ethernet header: those of a tun device or another kind of
/// tunnel begin with their IP headers, and would be misread.
fn has_ethernet(interface: &str) -> bool {
    /// ARPHRD_ETHER and ARPHRD_LOOPBACK of linux/if_arp.h.
    const WITH_ETHERNET: [&str; 2] = ["1", "772"];
    fs::read_to_string(format!("/sys/class/net/{interface}/type"))
        .is_ok_and(|kind| WITH_ETHERNET.contains(&kind.trim_end()))
}

fn names(facts: &Facts, matter: Matter, subject: u32) -> Names<'_> {
    let group = |number: usize| Some(facts.groups().get(number)?.name.as_str());
    match matter.subject() {
        Subject::Session => {
            let mut sessions = facts.sessions.iter();
            let session = sessions.find(|session| session.index == subject);
            Names {
                group: session.and_then(|session| group(session.group)),
                path: session.map(|session| session.path.as_str()),
                ..Names::default()
            }
        }
        Subject::Tunnel => {
            let mut tunnels = facts.tunnels.iter();
            let tunnel = tunnels.find(|tunnel| tunnel.index == subject);
            Names {
                tunnel: tunnel.map(|tunnel| tunnel.tunnel.name.as_str()),
                ..Names::default()
            }
        }
        Subject::Group => Names {
            group: usize::try_from(subject).ok().and_then(group),
            ..Names::default()
        },
        Subject::None => Names::default(),
    }
}
