//! The machine on a bench: a clock that is set by hand, and a peer that says what it is told to.

mod leases;
mod orders;
mod priorities;
mod rules;
mod table;

use std::time::Duration;

use router_common::{
    identity::{Claim, Epoch, Flags, NodeId},
    lease::Length,
    time::BootTime,
};

use crate::{Command, Core, Event, FormerLife, PeerReport, Policy, Prefer, State};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn policy(node: u32) -> Policy {
    Policy {
        node: NodeId(node),
        peer: NodeId(3 - node),
        keepalive: ms(10),
        dead: ms(40),
        prefer: Prefer::Availability,
        arbiter: None,
        lease: Length::from_us(30_000),
        agent_dead: ms(300),
        initial_wait: ms(500),
        auto_failback: true,
        failback_hold: ms(2000),
        fault_hold: ms(700),
    }
}

/// A core with a clock and a peer that says the same until told otherwise.
struct Bench {
    policy: Policy,
    core: Core,
    now: BootTime,
    peer: PeerReport,
    speaking: bool,
    commands: Vec<Command>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self::with_floor(policy, 0)
    }

    fn with_floor(policy: Policy, newest: u32) -> Self {
        let now = BootTime::from_ns(1_000_000_000);
        Self {
            core: Core::with_floor(policy.clone(), Epoch(newest), now),
            policy,
            now,
            peer: PeerReport::default(),
            speaking: false,
            commands: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) {
        let commands = self.core.handle(event, self.now);
        self.commands.extend(commands);
    }

    fn tick(&mut self) {
        if self.speaking {
            self.peer.last_heard = self.now;
            self.peer.newest_echo = self.now;
        }
        self.handle(Event::Tick(self.peer));
    }

    /// Ticks at every keepalive and at every deadline in between.
    fn run(&mut self, length: Duration) {
        let end = self.now.after(length);
        while self.now < end {
            let probe = self.now.after(ms(10)).min(end);
            self.now = self.core.next_deadline().map_or(probe, |at| probe.min(at));
            self.tick();
        }
    }

    /// With the base for its priority unless it tells another.
    fn says(&mut self, flags: Flags, claim: Claim) {
        self.speaking = true;
        self.peer.flags = flags.with_priority(flags.priority().unwrap_or_default());
        self.peer.claim = claim;
        self.peer.agent_age = ms(10);
    }

    fn hears(&mut self, flags: Flags, epoch: u32) {
        let owner = self.core.advertisement().claim.owner;
        self.says(
            flags,
            Claim {
                epoch: Epoch(epoch),
                owner,
            },
        );
        self.tick();
    }

    /// But for its priority.
    fn says_itself(&self) -> Flags {
        Flags(self.core.advertisement().flags.0 & 0xff)
    }

    fn newest(&self) -> u32 {
        self.core.advertisement().claim.epoch.0
    }

    /// A new agent goes on `after` the one that said `flags` under epoch 5 was broken off.
    fn resume(&mut self, flags: Flags, after: Duration) {
        let owner = if flags.contains(Flags::FORWARDING) {
            self.policy.node
        } else {
            self.policy.peer
        };
        let former = FormerLife {
            claim: Claim {
                epoch: Epoch(5),
                owner,
            },
            flags,
            opened: BootTime::NEVER,
            own_until: BootTime::NEVER,
            beat: self.now,
            ..FormerLife::default()
        };
        self.now = self.now.after(after);
        self.core = Core::resumed(self.policy.clone(), &former, Epoch(5), self.now);
    }
}

const READY: Flags = Flags::ELIGIBLE;
const OUT: Flags = Flags(0);
const ASKING: Flags = Flags(Flags::ELIGIBLE.0 | Flags::CANDIDATE.0);
const OWNER: Flags = Flags(Flags::ELIGIBLE.0 | Flags::FORWARDING.0);
const IMPAIRED: Flags = Flags::FORWARDING;
const DRAINING: Flags = Flags(Flags::FORWARDING.0 | Flags::DRAINING.0);
const FORCED: Flags = Flags(Flags::ELIGIBLE.0 | Flags::CANDIDATE.0 | Flags::FORCED.0);

fn active(node: u32) -> Bench {
    let mut bench = Bench::new(policy(node));
    bench.run(ms(550));
    assert_eq!(bench.core.state(), State::Active);
    assert_eq!(bench.commands, [Command::Take { epoch: Epoch(1) }]);
    bench.commands.clear();
    bench
}
