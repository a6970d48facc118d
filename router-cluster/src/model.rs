//! The real core and the real lease arithmetic, checked exhaustively: every behaviour of two or three nodes
//! with at most so many faults, begun and ended at any time, without a bound on time.
//!
//! Time goes in steps of a keepalive interval. All times are kept relative to now and no older than any
//! wait, revisions and request numbers are counted anew in each state; so a group that has nothing to do
//! returns to states that are known, and the checker ends.
//!
//! In a step every node that runs ticks and probes, in order of their places, and what is not cut or held
//! arrives at once, as do the arbiter's answers. All that differs from this is a fault. Duplicates are left
//! out: a node believes no sequence number twice.

use std::{
    num::{NonZero, NonZeroU64},
    time::{Duration, Instant},
};

use router_common::{
    identity::{Claim, Epoch, NodeId, Priority},
    lease::{self, Length},
    time::BootTime,
};
use stateright::{Checker as _, Model, Property};

use super::{
    Answer, ArbiterPolicy, Command, Event, Forced, Policy, Prefer, Request, Revision, State,
    core::relative::{Passed, revisions_of},
    node::{Message, Node, Outcome, Planted, owns},
    store::Store,
    told::tell,
};

/// A step, which is long beside the margin, and divides every wait of the core.
const STEP: Duration = Duration::from_millis(250);
/// Of a clock that is slow by the most that is allowed.
const SLOW_STEP: Duration = Duration::from_nanos(250_000_000 - 250_000_000 / 501);
/// What is older than this is as old as this: longer than every wait.
const OLD: Duration = Duration::from_secs(4);
const NOW: BootTime = BootTime::from_ns(100_000_000_000);
/// On a link that is held, and to an arbiter whose answers are.
const MOST_HELD: usize = 2;
/// A run that goes on claiming has no end.
const HIGHEST_EPOCH: Epoch = Epoch(12);

fn steps(steps: u32) -> Duration {
    STEP * steps
}

/// By what rule the nodes live, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    Consistency,
    Arbiter,
    /// A third node has no session with the others, and knows them by the record alone.
    ArbiterOfThree,
}

impl Setup {
    pub(super) const ALL: [Self; 3] = [Self::Consistency, Self::Arbiter, Self::ArbiterOfThree];

    const fn nodes(self) -> u32 {
        match self {
            Self::Consistency | Self::Arbiter => 2,
            Self::ArbiterOfThree => 3,
        }
    }

    fn policy(self, place: u32, planted: Option<Planted>) -> Policy {
        let contenders = match planted {
            Some(Planted::GrantsAmongThree) => 2,
            Some(_) | None => self.nodes() as usize,
        };
        Policy {
            node: NodeId(place),
            peer: NodeId(if place > 2 { 9 } else { 3 - place }),
            keepalive: STEP,
            dead: match planted {
                Some(Planted::HastyVerdict) => steps(1),
                Some(_) | None => steps(3),
            },
            prefer: Prefer::Consistency,
            arbiter: match self {
                Self::Consistency => None,
                Self::Arbiter | Self::ArbiterOfThree => Some(ArbiterPolicy {
                    term: steps(4),
                    timeout: steps(2),
                    contenders,
                }),
            },
            lease: Length::of(steps(13) / 4),
            agent_dead: steps(4),
            initial_wait: steps(2),
            auto_failback: false,
            failback_hold: steps(2),
            fault_hold: steps(2),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Up,
    Cut,
    /// The first messages arrive when it is up again; those after them do not.
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    Open,
    /// Requests are lost.
    Cut,
    /// Requests arrive when it is open again.
    RequestsHeld,
    /// Requests arrive, answers do when it is open again.
    AnswersHeld,
    /// Requests arrive, answers do not.
    AnswersLost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    by: usize,
    /// Zero: its answer is not waited for any more.
    number: u64,
    request: Request,
    sent: BootTime,
    answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    node: Node,
    /// How far its clock goes in a step.
    step: Duration,
    frozen: bool,
    way: Way,
}

impl Place {
    fn runs(&self) -> bool {
        self.node.powered && !self.frozen
    }

    fn healthy(&self) -> bool {
        self.runs() && self.node.healthy()
    }

    fn forwards(&self) -> bool {
        self.runs() && self.node.forwards(NOW)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    places: Vec<Place>,
    /// By sender.
    links: [Link; 2],
    flights: [Vec<Message>; 2],
    store: Store,
    asked: Vec<Asked>,
    wiped: bool,
    faults_left: u8,
    highest_forwarded: Epoch,
    /// What was seen within a step.
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A step of time.
    Pass,
    Begin(Fault),
    End(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Link(usize, LinkFault),
    Way(usize, WayFault),
    Stop(usize),
    Kill(usize),
    /// Ends a [`Self::Kill`] with an agent that goes on; the other end is one that starts anew.
    Resume(usize),
    PowerOff(usize),
    Freeze(usize),
    /// Its priority falls.
    Lower(usize),
    /// These have no end.
    Leave(usize),
    Force(usize, Forced),
    Unwell(usize),
    Wipe,
}

impl Fault {
    /// Of one kind that has others like it: what is not heard, not answered, or gone.
    const fn is_loss(self) -> bool {
        match self {
            Self::Link(_, LinkFault::Cut)
            | Self::Way(_, WayFault::Cut | WayFault::AnswersHeld)
            | Self::PowerOff(_) => true,
            Self::Link(_, LinkFault::Held)
            | Self::Way(_, WayFault::RequestsHeld | WayFault::AnswersLost)
            | Self::Stop(_)
            | Self::Kill(_)
            | Self::Resume(_)
            | Self::Freeze(_)
            | Self::Lower(_)
            | Self::Leave(_)
            | Self::Force(..)
            | Self::Unwell(_)
            | Self::Wipe => false,
        }
    }
}

/// Which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    All,
    Losses,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkFault {
    Cut,
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayFault {
    Cut,
    RequestsHeld,
    AnswersHeld,
    AnswersLost,
}

impl World {
    fn new(setup: Setup, clocks: &[Duration], faults: u8, planted: Option<Planted>) -> Self {
        let place = |place: u32| Place {
            node: Node::new(setup.policy(place, planted), planted, NOW),
            step: clocks[place as usize - 1],
            frozen: false,
            way: Way::Open,
        };
        Self {
            places: (1..=setup.nodes()).map(place).collect(),
            links: [Link::Up; 2],
            flights: [Vec::new(), Vec::new()],
            store: Store::default(),
            asked: Vec::new(),
            wiped: false,
            faults_left: faults,
            highest_forwarded: Epoch::default(),
            broken: None,
        }
    }

    // ---- A step ------------------------------------------------------------------------------------

    fn pass(&mut self) {
        self.age();
        self.look();
        for index in 0..self.places.len() {
            if self.places[index].healthy() {
                let outcomes = self.places[index].node.tick(NOW);
                self.follow(index, outcomes);
                let probe = self.places[index].node.speak(None, NOW);
                self.send(index, probe);
            }
        }
        self.settle();
    }

    /// All that is under way arrives, and what follows from it.
    fn settle(&mut self) {
        loop {
            let mut moved = self.arbitrate();
            for from in 0..2 {
                if self.links[from] == Link::Up && !self.flights[from].is_empty() {
                    let message = self.flights[from].remove(0);
                    let to = 1 - from;
                    if self.places[to].runs()
                        && let Some(reply) = self.places[to].node.hear(&message, NOW)
                    {
                        self.send(to, reply);
                    }
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        self.look();
    }

    fn send(&mut self, from: usize, message: Message) {
        // The third has nobody to speak with.
        if from > 1 {
            return;
        }
        let holds = self.flights[from].len() < MOST_HELD;
        match self.links[from] {
            Link::Up => self.flights[from].push(message),
            Link::Held if holds => self.flights[from].push(message),
            Link::Held | Link::Cut => {}
        }
    }

    fn arbitrate(&mut self) -> bool {
        let due = self
            .asked
            .iter()
            .position(|asked| match self.places[asked.by].way {
                Way::Open => true,
                Way::Cut | Way::RequestsHeld => false,
                Way::AnswersHeld | Way::AnswersLost => asked.answer.is_none(),
            });
        let Some(due) = due else {
            return false;
        };
        let mut asked = self.asked.remove(due);
        let by = asked.by;
        let planted = self.places[by].node.planted;
        let answer = *asked
            .answer
            .get_or_insert_with(|| self.store.serve(asked.request, planted));
        match self.places[by].way {
            Way::AnswersHeld => self.asked.push(asked),
            Way::AnswersLost | Way::Cut | Way::RequestsHeld => {}
            Way::Open if !self.places[by].healthy() => {
                // The agent reads it when it goes on.
                if self.places[by].node.core.is_some() {
                    self.asked.push(asked);
                    return false;
                }
            }
            Way::Open => {
                let node = &mut self.places[by].node;
                let outcome = node.answered(asked.number, asked.sent, answer, NOW);
                self.follow(by, outcome);
            }
        }
        true
    }

    fn follow(&mut self, index: usize, outcomes: impl IntoIterator<Item = Outcome>) {
        for outcome in outcomes {
            for command in outcome.commands {
                match command {
                    Command::Ask { number, request } => self.ask(index, number, request),
                    Command::Take { .. } | Command::Release { .. } | Command::Announce { .. } => {}
                }
            }
        }
        self.look();
    }

    fn ask(&mut self, by: usize, number: u64, request: Request) {
        let held = self.asked.iter().filter(|asked| asked.by == by).count();
        if self.places[by].way == Way::Cut || held >= MOST_HELD {
            return;
        }
        self.asked.push(Asked {
            by,
            number,
            request,
            sent: NOW,
            answer: None,
        });
    }

    // ---- What must hold ----------------------------------------------------------------------------

    fn look(&mut self) {
        let forwarding = self.places.iter().filter(|place| place.forwards()).count();
        if forwarding > 1 {
            self.broken = Some(EXCLUSION);
        }
        for place in self.places.iter().filter(|place| place.forwards()) {
            let Claim { epoch, owner: _ } = Claim::from_word(place.node.fence.claim);
            if epoch < self.highest_forwarded && !self.wiped {
                self.broken = Some(EPOCHS);
            }
            self.highest_forwarded = self.highest_forwarded.max(epoch);
        }
        for from in 0..2 {
            let [holder, granter] = [from, 1 - from].map(|index| &self.places[index]);
            let holds = holder.node.powered
                && lease::lease_end(&holder.node.fence, &holder.node.lease) > NOW;
            if holds && granter.node.state().is_some_and(owns) {
                self.broken = Some(PROMISES);
            }
        }
    }

    // ---- Faults ------------------------------------------------------------------------------------

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Link(from, LinkFault::Cut) => self.links[from] = Link::Cut,
            Fault::Link(from, LinkFault::Held) => self.links[from] = Link::Held,
            Fault::Way(index, fault) => {
                self.places[index].way = match fault {
                    WayFault::Cut => Way::Cut,
                    WayFault::RequestsHeld => Way::RequestsHeld,
                    WayFault::AnswersHeld => Way::AnswersHeld,
                    WayFault::AnswersLost => Way::AnswersLost,
                }
            }
            Fault::Stop(index) => self.places[index].node.stopped = true,
            Fault::Kill(index) | Fault::Resume(index) => {
                self.places[index].node.core = None;
                self.asked
                    .retain(|asked| asked.by != index || asked.answer.is_none());
            }
            Fault::PowerOff(index) => self.places[index].node.power_off(),
            Fault::Freeze(index) => self.places[index].frozen = true,
            Fault::Lower(index) => self.set_priority(index, Priority::weighted(-20)),
            Fault::Leave(index) => self.give(index, Event::Stop),
            Fault::Force(index, forced) => self.give(index, Event::Force(forced)),
            Fault::Unwell(index) => {
                let outcome = self.places[index].node.monitors(false, NOW);
                self.follow(index, outcome);
            }
            Fault::Wipe => {
                self.store.wipe();
                self.wiped = true;
            }
        }
        self.settle();
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Link(from, _) => self.links[from] = Link::Up,
            Fault::Way(index, _) => self.places[index].way = Way::Open,
            Fault::Stop(index) => {
                let outcomes = self.places[index].node.go_on(NOW);
                self.follow(index, outcomes);
            }
            Fault::Kill(index) => self.places[index].node.start(NOW),
            Fault::Resume(index) => self.places[index].node.resume(NOW),
            Fault::PowerOff(index) => self.places[index].node.power_on(NOW),
            Fault::Freeze(index) => self.places[index].frozen = false,
            Fault::Lower(index) => self.set_priority(index, Priority::BASE),
            Fault::Leave(_) | Fault::Force(..) | Fault::Unwell(_) | Fault::Wipe => {}
        }
        self.look();
        self.settle();
    }

    fn set_priority(&mut self, index: usize, priority: Priority) {
        let outcome = self.places[index].node.set_priority(priority, NOW);
        self.follow(index, outcome);
    }

    fn give(&mut self, index: usize, event: Event) {
        let outcome = self.places[index].node.handle(event, NOW);
        self.follow(index, outcome);
    }

    /// The faults that can begin, and those that can end.
    fn faults(&self, actions: &mut Vec<Action>) {
        let mut begin = |fault| {
            if self.faults_left > 0 {
                actions.push(Action::Begin(fault));
            }
        };
        for (from, link) in self.links.iter().enumerate() {
            if *link == Link::Up {
                begin(Fault::Link(from, LinkFault::Cut));
                begin(Fault::Link(from, LinkFault::Held));
            }
        }
        for (index, place) in self.places.iter().enumerate() {
            if place.way == Way::Open && place.node.policy.arbiter.is_some() {
                begin(Fault::Way(index, WayFault::Cut));
                begin(Fault::Way(index, WayFault::RequestsHeld));
                begin(Fault::Way(index, WayFault::AnswersHeld));
                begin(Fault::Way(index, WayFault::AnswersLost));
            }
            if place.runs() {
                begin(Fault::PowerOff(index));
                begin(Fault::Freeze(index));
            }
            if place.healthy() {
                begin(Fault::Stop(index));
                begin(Fault::Kill(index));
                begin(Fault::Leave(index));
                begin(Fault::Force(index, Forced::Standby));
                begin(Fault::Force(index, Forced::Active { anyway: true }));
                begin(Fault::Unwell(index));
                if place.node.priority == Priority::BASE {
                    begin(Fault::Lower(index));
                }
            }
        }
        if self.store.record.is_some() {
            begin(Fault::Wipe);
        }
        let mut end = |fault| actions.push(Action::End(fault));
        for (from, link) in self.links.iter().enumerate() {
            if *link != Link::Up {
                end(Fault::Link(from, LinkFault::Cut));
            }
        }
        for (index, place) in self.places.iter().enumerate() {
            if place.way != Way::Open {
                end(Fault::Way(index, WayFault::Cut));
            }
            if place.frozen {
                end(Fault::Freeze(index));
            }
            if place.healthy() && place.node.priority != Priority::BASE {
                end(Fault::Lower(index));
            }
            if !place.node.powered {
                end(Fault::PowerOff(index));
            } else if place.runs() && place.node.core.is_none() {
                end(Fault::Kill(index));
                end(Fault::Resume(index));
            } else if place.runs() && place.node.stopped {
                end(Fault::Stop(index));
            }
        }
    }

    // ---- States that are the same --------------------------------------------------------------------

    /// A step has passed: every time is one step longer ago.
    fn age(&mut self) {
        let clocks: Vec<Duration> = self.places.iter().map(|place| place.step).collect();
        let passed = |index: usize| Passed {
            by: clocks[index],
            oldest: super::node::earlier(NOW, OLD),
        };
        for (index, place) in self.places.iter_mut().enumerate() {
            let passed = passed(index);
            let node = &mut place.node;
            if let Some(core) = &mut node.core {
                core.pass(passed);
            }
            passed.over_report(&mut node.report);
            for at in [
                &mut node.agent_seen,
                &mut node.heard_tx,
                &mut node.granted,
                &mut node.last_tick.0,
            ] {
                passed.over(at);
            }
            passed.over_report(&mut node.last_tick.1);
            for ns in [
                &mut node.fence.opened_ns,
                &mut node.fence.authority_end_ns,
                &mut node.lease.granted_tx_ns,
            ] {
                let mut at = BootTime::from_ns(*ns);
                passed.over(&mut at);
                *ns = at.as_ns();
            }
        }
        for (from, flights) in self.flights.iter_mut().enumerate() {
            for message in flights {
                passed(from).over(&mut message.tx);
                passed(1 - from).over(&mut message.echo);
            }
        }
        for asked in &mut self.asked {
            passed(asked.by).over(&mut asked.sent);
        }
    }

    /// Counts requests and revisions anew.
    fn recount(&mut self) {
        for (index, place) in self.places.iter_mut().enumerate() {
            let open = place.node.core.as_mut().and_then(super::Core::renumber);
            for asked in self.asked.iter_mut().filter(|asked| asked.by == index) {
                asked.number = u64::from(open == Some(asked.number));
            }
        }
        // What nobody waits for has its effect, and no answer.
        self.asked
            .retain(|asked| asked.number != 0 || asked.answer.is_none());
        let mut revisions: Vec<&mut Revision> = Vec::new();
        for place in &mut self.places {
            revisions.extend(place.node.core.iter_mut().flat_map(super::Core::revisions));
        }
        for asked in &mut self.asked {
            if let Request::Swap {
                expected: Some(expected),
                record: _,
            } = &mut asked.request
            {
                revisions.push(expected);
            }
            revisions.extend(asked.answer.as_mut().and_then(revisions_of));
        }
        revisions.extend(self.store.record.as_mut().map(|(revision, _)| revision));
        let mut known: Vec<u64> = revisions.iter().map(|revision| revision.0.get()).collect();
        known.sort_unstable();
        known.dedup();
        for revision in revisions {
            let rank = known.partition_point(|&number| number < revision.0.get()) as u64 + 1;
            revision.0 = NonZeroU64::new(rank).expect("from one");
        }
        self.store.writes = known.len() as u64;
    }
}

const EXCLUSION: &str = "never two forward in the same instant";
const EPOCHS: &str = "nobody forwards under an epoch after a higher one";
const PROMISES: &str = "nobody is active while what it granted holds";

#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub setup: Setup,
    pub kinds: Kinds,
    pub faults: u8,
    pub planted: Option<Planted>,
}

impl Model for Group {
    type State = World;
    type Action = Action;

    /// Clocks that agree, and such as differ by all that is allowed, either way.
    fn init_states(&self) -> Vec<World> {
        [
            [STEP, STEP, STEP],
            [STEP, SLOW_STEP, SLOW_STEP],
            [SLOW_STEP, STEP, SLOW_STEP],
        ]
        .map(|clocks| World::new(self.setup, &clocks, self.faults, self.planted))
        .into()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_none() {
            actions.push(Action::Pass);
            world.faults(actions);
            actions.retain(|action| match (self.kinds, action) {
                (Kinds::Losses, Action::Begin(fault)) => fault.is_loss(),
                (Kinds::Losses | Kinds::All, _) => true,
            });
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Pass => world.pass(),
            Action::Begin(fault) => {
                world.faults_left -= 1;
                world.begin(fault);
            }
            Action::End(fault) => world.end(fault),
        }
        world.recount();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(EXCLUSION, |_, world: &World| {
                world.broken != Some(EXCLUSION)
            }),
            Property::always(EPOCHS, |_, world: &World| world.broken != Some(EPOCHS)),
            Property::always(PROMISES, |_, world: &World| world.broken != Some(PROMISES)),
            // So that the others do not hold for want of anything that happens.
            Property::sometimes("the primary forwards", |_, world: &World| {
                world.places[0].forwards()
            }),
            Property::sometimes("another forwards", |_, world: &World| {
                world.places[1..].iter().any(Place::forwards)
            }),
        ];
        if self.kinds == Kinds::All {
            properties.push(Property::sometimes("one drains", |_, world: &World| {
                let drains = |place: &Place| place.node.state() == Some(State::Draining);
                world.places.iter().any(drains)
            }));
        }
        if self.setup == Setup::Arbiter {
            properties.push(Property::sometimes(
                "one lives on grants alone",
                |_, world: &World| {
                    let paired =
                        |place: &Place| place.forwards() && place.node.fence.authority_end_ns == 0;
                    world.places.iter().any(paired)
                },
            ));
        }
        properties
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.highest_forwarded < HIGHEST_EPOCH
    }
}

/// The number of states, if all of them are as they must be; else the way to one that is not.
pub(super) fn check(group: Group) -> Result<usize, String> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let checker = group
        .checker()
        .threads(threads)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    for (name, path) in checker.discoveries() {
        if [EXCLUSION, EPOCHS, PROMISES].contains(&name) {
            return Err(format!("not so: {name}, by {:?}", path.into_actions()));
        }
    }
    if group.planted.is_none() {
        checker.assert_properties();
    }
    Ok(checker.unique_state_count())
}

/// Prints how many states there were.
fn check_all(groups: &[(Setup, Kinds, u8)]) {
    for &(setup, kinds, faults) in groups {
        let group = Group {
            setup,
            kinds,
            faults,
            planted: None,
        };
        let of = format!("{setup:?}, faults: {faults} of {kinds:?}");
        let start = Instant::now();
        let states = check(group).unwrap_or_else(|error| panic!("{of}: {error}"));
        tell(format_args!(
            "{of}: {states} states in {:.1} s",
            start.elapsed().as_secs_f64()
        ));
    }
}

#[test]
fn what_is_promised_holds_in_every_state() {
    check_all(&Setup::ALL.map(|setup| (setup, Kinds::All, 1)));
}

/// `cargo xtask check-model --deep`.
#[test]
#[ignore = "takes many minutes"]
fn deep() {
    check_all(&Setup::ALL.map(|setup| (setup, Kinds::Losses, 2)));
}
