//! Verifies a heartbeat, keeps what it says, and turns a probe into its reply, without any
//! process.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_ktime_get_boot_ns, programs::XdpContext};
use router_common::{
    heartbeat::{self, Admission, Content, Heartbeat, Kind, Known},
    identity::NodeId,
    keys::Named,
    lease::{self, Grant, Length, Renewal},
    log::Matter,
    map::{RoundTrips, SessionKey, SessionState},
    net::{Ipv4, PROTO_UDP, Udp},
    packet::Packet as _,
    time::BootTime,
};

use crate::{
    decap::Arrived,
    frame::Frame,
    log, maps,
    verdict::{Action, Refusal},
};

/// Of a reply, in both of its IP headers.
const TTL: u8 = 255;

/// Deals with a heartbeat; a probe is given back as its reply.
#[inline(always)]
pub fn receive(ctx: &XdpContext, arrived: &Arrived) -> Result<Action, Refusal> {
    let index = arrived.tunnel.index;
    let mut heard = Heard::default();
    let why = match admit(ctx.ctx, arrived, &mut heard) {
        Admitted::Reply => {
            if heard.lease != 0 {
                log::of_frame(ctx.ctx, Matter::LeaseRenewed, heard.session);
            }
            return Ok(Action::Consume);
        }
        Admitted::Probe => {
            let answered = answer(ctx.ctx, arrived, &mut heard);
            if heard.lease != 0 {
                log::of_frame(ctx.ctx, Matter::LeaseGranted, heard.session);
            }
            return answered
                .and_then(|()| turn_round(ctx.ctx, arrived.outer_offset))
                .map(|()| Action::Answer)
                .ok_or(Refusal::NotHeartbeat { index });
        }
        Admitted::NotHeartbeat => return Err(Refusal::NotHeartbeat { index }),
        Admitted::NoSession => return Err(Refusal::NoSession { index }),
        Admitted::Forged => Matter::Forged,
        Admitted::NotUnderstood => Matter::NotUnderstood,
        Admitted::Stale => Matter::Stale,
        Admitted::WrongSender => Matter::WrongSender,
    };
    let session = heard.session;
    Err(Refusal::Refused { session, why })
}

/// Of a message, what its reply takes from its admission: looking the session up and asking for the
/// time are what costs most beside the MACs.
#[derive(Clone, Copy, Default)]
struct Heard {
    /// Index into the maps of sessions.
    session: u32,
    /// When it came. A lease counts from the holder's probe, which was sent before that, so that this
    /// is late enough to note a grant at, and to stamp the reply with.
    at_ns: u64,
    /// 1 if it granted us a lease, or we its sender.
    lease: u32,
}

/// What crosses the call, see [`crate::decap::Step`].
#[derive(Clone, Copy)]
#[repr(u32)]
enum Admitted {
    Reply,
    Probe,
    NotHeartbeat,
    NoSession,
    Forged,
    NotUnderstood,
    Stale,
    WrongSender,
}

/// Verifies the message and keeps what it says.
// This, `answer` and `turn_round` have frames of their own, one after the other, for the limit of a
// program's stack.
// VERIFIER: "combined stack size of 2 calls is 528. Too large", with the reply made in here.
#[inline(never)]
fn admit(ctx: *mut xdp_md, arrived: &Arrived, heard: &mut Heard) -> Admitted {
    match verify(&XdpContext::new(ctx), arrived, heard) {
        Ok(Kind::Reply) => Admitted::Reply,
        Ok(Kind::Probe) => Admitted::Probe,
        Err(refused) => refused,
    }
}

#[inline(always)]
fn verify(ctx: &XdpContext, arrived: &Arrived, heard: &mut Heard) -> Result<Kind, Admitted> {
    let frame = Frame(ctx);
    let Arrived {
        inner_offset,
        inner_length,
        ..
    } = *arrived;
    let inner: Ipv4 = frame.read(inner_offset).ok_or(Admitted::NotHeartbeat)?;
    let udp: Udp = frame
        .read(inner_offset + Ipv4::LEN)
        .ok_or(Admitted::NotHeartbeat)?;
    if udp.length() != Heartbeat::UDP_LENGTH
        || inner.total_length() != Heartbeat::IPV4_LENGTH
        || inner_length != usize::from(Heartbeat::IPV4_LENGTH)
    {
        return Err(Admitted::NotHeartbeat);
    }
    let message_offset = inner_offset + Ipv4::LEN + Udp::LEN;
    let message: Heartbeat = frame.load(message_offset).ok_or(Admitted::NotHeartbeat)?;
    let index = session_index(arrived, &message).ok_or(Admitted::NoSession)?;
    let config = maps::SESSION_CONFIG.get(index).ok_or(Admitted::NoSession)?;
    let local = maps::LOCAL.get(index).ok_or(Admitted::NoSession)?;
    let state = maps::SESSIONS
        .get_ptr_mut(index)
        .ok_or(Admitted::NoSession)?;
    // SAFETY: an array element; it is aligned, never freed while the program runs, and every
    // reader takes it word by word.
    let state = unsafe { &mut *state };
    if local.generation() == 0 {
        return Err(Admitted::NoSession);
    }
    // SAFETY: a helper without arguments.
    let now = BootTime::from_ns(unsafe { bpf_ktime_get_boot_ns() });
    *heard = Heard {
        session: index,
        at_ns: now.as_ns(),
        lease: 0,
    };

    let used = message.key_number();
    let authentic = match config.keys.find(used) {
        Some(slot) => message.is_authentic(&slot.rx()),
        None => false,
    };
    if !authentic {
        state.mac_failures += 1;
        state.last_mac_failure_ns = now.as_ns();
        return Err(Admitted::Forged);
    }
    let Some(content) = message.content() else {
        state.not_understood += 1;
        return Err(Admitted::NotUnderstood);
    };
    let known = Known {
        generation: state.generation(),
        probe_sequence: state.probe_sequence,
        reply_sequence: state.reply_sequence,
        newest_echo: BootTime::from_ns(state.newest_echo_ns),
    };
    let peer = NodeId(config.peer_node);
    match heartbeat::admit(peer, local.generation(), &known, &content, now) {
        Admission::Fresh => {
            record(state, index, used, &content, &inner, now);
            heard.lease = renew_lease(config.group, local.generation(), &content, now);
        }
        Admission::NewGeneration => {
            begin_generation(state, &content);
            record(state, index, used, &content, &inner, now);
            heard.lease = renew_lease(config.group, local.generation(), &content, now);
        }
        Admission::Unproven => state.unproven += 1,
        Admission::Stale => {
            state.stale += 1;
            return Err(Admitted::Stale);
        }
        Admission::WrongSender => {
            state.wrong_sender += 1;
            return Err(Admitted::WrongSender);
        }
    }
    Ok(content.kind)
}

/// Makes the inner packet of an admitted probe that of its reply.
#[inline(never)]
fn answer(ctx: *mut xdp_md, arrived: &Arrived, heard: &mut Heard) -> Option<()> {
    let Heard {
        session: index,
        at_ns,
        ..
    } = *heard;
    let now = BootTime::from_ns(at_ns);
    let ctx = XdpContext::new(ctx);
    let frame = Frame(&ctx);
    let inner: Ipv4 = frame.read(arrived.inner_offset)?;
    let udp: Udp = frame.read(arrived.inner_offset + Ipv4::LEN)?;
    let message: Heartbeat = frame.load(arrived.inner_offset + Ipv4::LEN + Udp::LEN)?;
    let config = maps::SESSION_CONFIG.get(index)?;
    let local = maps::LOCAL.get(index)?;
    let content = message.content()?;
    let named = Named {
        used: message.key_number(),
        wanted: content.wanted_key,
    };
    let slot = config.keys.sign_for(named)?;
    // Of nobody knows whom, a lease would still bind us.
    let is_believed = maps::SESSIONS.get(index)?.generation() == content.generation;
    let grant = if is_believed {
        grant(index, content.sender, now)
    } else {
        Length::NONE
    };
    heard.lease = u32::from(!grant.is_none());
    let reply = heartbeat::reply(&content, &slot.tx(), config, local, grant, now);
    put_reply(
        frame,
        arrived.inner_offset,
        &inner,
        &udp,
        config.local_address,
        &reply,
    )
}

#[inline(always)]
fn session_index(arrived: &Arrived, message: &Heartbeat) -> Option<u32> {
    let key = SessionKey {
        tunnel_index: arrived.tunnel.index,
        session: message.session(),
    };
    // SAFETY: the value is one integer.
    unsafe { maps::SESSION_INDEX.get(key) }.copied()
}

/// Takes what a believed message grants; 1 if it does.
#[inline(always)]
fn renew_lease(group: u32, generation: u32, message: &Content, now: BootTime) -> u32 {
    let (Some(fence), Some(lease)) = (maps::FENCES.get(group), maps::LEASES.get_ptr_mut(group))
    else {
        return 0;
    };
    let grant = Grant {
        claim: message.claim.to_word(),
        length: message.grant,
        echo_tx: message.echo_tx,
        echoes_us: message.echo_generation == generation,
    };
    match lease::renew(fence, &grant, now) {
        // SAFETY: an array element, aligned and never freed while the program runs; its words are
        // each written whole. If others keep raising it, theirs are as good.
        Renewal::From(tx) => unsafe {
            maps::raise(&raw mut (*lease).granted_tx_ns, tx.as_ns());
            (*lease).renewals += 1;
            return 1;
        },
        Renewal::NotGranted => {}
        // SAFETY: as above; of two at once one may not be counted.
        Renewal::NotForUs => unsafe { (*lease).not_for_us += 1 },
        // SAFETY: as above.
        Renewal::TooShort => unsafe { (*lease).too_short += 1 },
    }
    0
}

/// What the reply to `receiver` grants, noted before it leaves.
///
/// The agent stops granting by closing `grant_us` and then reading what was noted. Either it sees
/// our note, or we see here that it has closed: between our two accesses, and between its two, lies
/// a full barrier.
#[inline(always)]
fn grant(session: u32, receiver: NodeId, now: BootTime) -> Length {
    let (Some(local), Some(granted)) = (
        maps::LOCAL.get_ptr(session),
        maps::GRANTED.get_ptr_mut(session),
    ) else {
        return Length::NONE;
    };
    // SAFETY: array elements, aligned and never freed while the program runs; the agent writes
    // `local` word by word, and `granted` by the same instruction.
    unsafe {
        let grants = || (&raw const (*local).grant_us).read_volatile();
        if grants() == 0
            || (*local).claim().owner != receiver
            || !maps::raise(&raw mut (*granted).granted_ns, now.as_ns())
        {
            return Length::NONE;
        }
        let length = Length::from_us(grants() as u32);
        if !length.is_none() {
            maps::atomic_add(&raw mut (*granted).grants, 1);
        }
        length
    }
}

#[inline(always)]
fn begin_generation(state: &mut SessionState, message: &Content) {
    state.peer_generation = u64::from(message.generation);
    for word in [
        &mut state.probe_sequence,
        &mut state.first_probe_sequence,
        &mut state.probes,
        &mut state.peer_tx_ns,
        &mut state.reply_sequence,
        &mut state.first_reply_sequence,
        &mut state.replies,
        &mut state.rtt_min_ns,
        &mut state.rtt_max_ns,
        &mut state.rtt_sum_ns,
        &mut state.jitter_16ths,
    ] {
        // Volatile, or LLVM makes it one call, which needs a stack of its own and clears byte by
        // byte.
        // SAFETY: a reference is valid and aligned.
        unsafe { core::ptr::write_volatile(word, 0) };
    }
}

#[inline(always)]
fn record(
    state: &mut SessionState,
    index: u32,
    used: u16,
    message: &Content,
    inner: &Ipv4,
    now: BootTime,
) {
    match message.kind {
        Kind::Probe => {
            state.probe_sequence = message.sequence;
            if state.first_probe_sequence == 0 {
                state.first_probe_sequence = message.sequence;
            }
            state.probes += 1;
        }
        Kind::Reply => {
            state.reply_sequence = message.sequence;
            if state.first_reply_sequence == 0 {
                state.first_reply_sequence = message.sequence;
            }
            state.replies += 1;
            state.last_reply_ns = now.as_ns();
            record_transit(state, now.as_ns().wrapping_sub(message.tx.as_ns()));
            let rtt_ns = now.as_ns().saturating_sub(message.echo_tx.as_ns());
            record_round_trip(state, rtt_ns);
            count_round_trip(index, rtt_ns);
        }
    }
    // Messages of one kind may overtake those of the other.
    if message.echo_tx.as_ns() > state.newest_echo_ns {
        state.newest_echo_ns = message.echo_tx.as_ns();
    }
    // What it said last counts, not what came last.
    if message.tx.as_ns() >= state.peer_tx_ns {
        state.peer_tx_ns = message.tx.as_ns();
        state.peer_claim = message.claim.to_word();
        state.peer_status = SessionState::status_word(message.flags, message.agent_age_us);
        state.peer_keys = Named {
            used,
            wanted: message.wanted_key,
        }
        .to_word();
    }
    state.peer_address = u64::from(u32::from_ne_bytes(inner.source));
    // Last, so that who sees the new time sees what came with it. It never goes back: an agent that has
    // granted is bound from then on (R4), and a CPU may come here late with what it was told earlier.
    // SAFETY: a reference is valid and aligned; others raise it by the same instruction.
    unsafe {
        maps::change(&raw mut state.last_heard_ns, |before| {
            (before < now.as_ns()).then_some(now.as_ns())
        });
    }
}

#[inline(always)]
fn record_round_trip(state: &mut SessionState, rtt_ns: u64) {
    state.rtt_last_ns = rtt_ns;
    state.rtt_sum_ns += rtt_ns;
    if state.rtt_min_ns == 0 || rtt_ns < state.rtt_min_ns {
        state.rtt_min_ns = rtt_ns;
    }
    if rtt_ns > state.rtt_max_ns {
        state.rtt_max_ns = rtt_ns;
    }
}

/// The jitter of replies on their way to us: both stamps are those of kernels.
#[inline(always)]
fn record_transit(state: &mut SessionState, transit_ns: u64) {
    // RFC 3550 §A.8. The first reply of a generation has nothing to differ from.
    if state.replies > 1 {
        let difference = (transit_ns.wrapping_sub(state.transit_ns) as i64).unsigned_abs();
        state.jitter_16ths = state
            .jitter_16ths
            .wrapping_add(difference)
            .wrapping_sub((state.jitter_16ths + 8) >> 4);
    }
    state.transit_ns = transit_ns;
}

#[inline(always)]
fn count_round_trip(session: u32, rtt_ns: u64) {
    let Some(round_trips) = maps::ROUND_TRIPS.get_ptr_mut(session) else {
        return;
    };
    // SAFETY: an array element, aligned and never freed while the program runs; readers take it
    // word by word.
    let buckets = unsafe { &mut (*round_trips).buckets };
    // VERIFIER: "math between map_value pointer and register with unbounded min value is not
    // allowed". LLVM knows that a bucket is in bounds, and leaves out the comparison which tells.
    let mut bucket = RoundTrips::bucket(rtt_ns);
    // SAFETY: a register is given its own value.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) bucket, options(pure, nomem)) };
    if let Some(replies) = buckets.get_mut(bucket) {
        *replies += 1;
    }
}

/// Overwrites the probe's inner packet with that of the reply.
#[inline(always)]
fn put_reply(
    frame: Frame<'_>,
    offset: usize,
    inner: &Ipv4,
    udp: &Udp,
    local_address: [u8; 4],
    reply: &Heartbeat,
) -> Option<()> {
    frame.write(
        offset,
        &Ipv4::new(
            PROTO_UDP,
            local_address,
            inner.source,
            inner.tos,
            TTL,
            Heartbeat::IPV4_LENGTH,
        ),
    )?;
    frame.write(
        offset + Ipv4::LEN,
        &Udp::without_checksum(udp.destination(), udp.source(), Heartbeat::UDP_LENGTH),
    )?;
    frame.store(offset + Ipv4::LEN + Udp::LEN, reply)
}

/// Exchanges the directions of the outer headers.
#[inline(never)]
fn turn_round(ctx: *mut xdp_md, outer_offset: usize) -> Option<()> {
    let ctx = XdpContext::new(ctx);
    let frame = Frame(&ctx);
    // By words: Ethernet's two addresses have six bytes each.
    frame.exchange::<u32>(0, 6)?;
    frame.exchange::<u16>(4, 10)?;
    let version: u8 = frame.read(outer_offset)?;
    if version >> 4 == 4 {
        let outer: Ipv4 = frame.read(outer_offset)?;
        frame.write(outer_offset, &outer.reversed().with_ttl(TTL))?;
    } else {
        // RFC 8200 §3: hop limit, source, destination.
        frame.write(outer_offset + 7, &TTL)?;
        frame.exchange::<u64>(outer_offset + 8, outer_offset + 24)?;
        frame.exchange::<u64>(outer_offset + 16, outer_offset + 32)?;
    }
    Some(())
}
