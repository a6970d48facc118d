//! Asking the kernel's routing tables, which follows the routing rules too.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_FIB_LKUP_RET_UNSUPP_LWT, BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup,
    },
    helpers::generated,
    macros::map,
    maps::PerCpuArray,
    programs::XdpContext,
};
use router_common::{
    map::TunnelEgress,
    net::{ETH_P_IPV4, Mac},
};

use crate::outer;

/// `struct bpf_fib_lookup` of linux/bpf.h, where the kernel puts its answer too.
#[repr(C)]
pub struct Query {
    pub family: u8,
    pub protocol: u8,
    /// Source and destination as in the packet, or zeros.
    pub ports: [u8; 4],
    /// Bytes from the IP header on, which must fit the route's MTU. Zero always does.
    pub length: u16,
    /// The interface by which the packet came, or by which it must leave. Answer: leaves.
    pub ifindex: u32,
    /// IPv4: the type of service in the first byte. IPv6: its header's first four bytes, without
    /// the version.
    pub flow: [u8; 4],
    /// Source and destination in network order; IPv4 in the first word of each. Answer: the next
    /// hop in place of the destination.
    pub addresses: [[u32; 4]; 2],
    vlan: [u8; 4],
    source_mac: Mac,
    destination_mac: Mac,
}

const _: () = assert!(size_of::<Query>() == 64 && size_of::<bpf_fib_lookup>() == 64);

/// The kernel's answers that are of use.
const FOUND: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
/// As `FOUND`, but the next hop's Ethernet address is not known.
const NO_NEIGHBOUR: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;

impl Query {
    pub const IPV4: u8 = 2;
    pub const IPV6: u8 = 10;
}

/// Where a packet leaves.
#[derive(Clone, Copy)]
pub struct Hop {
    pub ifindex: u32,
    pub source_mac: Mac,
    pub destination_mac: Mac,
}

// VERIFIER: "combined stack size of 4 calls is 576": on the stack it would not fit.
#[map]
static QUERY: PerCpuArray<[u64; 8]> = PerCpuArray::with_max_entries(1, 0);

/// The CPU's one query, as the last packet left it.
#[inline(always)]
pub(super) fn query() -> Option<&'static mut Query> {
    let query: *mut Query = QUERY.get_ptr_mut(0)?.cast();
    // SAFETY: aligned and as long, valid as any bytes; a per-CPU value that nobody else uses while
    // this program runs, and each packet asks for it once.
    Some(unsafe { &mut *query })
}

impl Query {
    /// One that asks for nothing yet.
    #[inline(always)]
    pub fn blank() -> Option<&'static mut Self> {
        let words = QUERY.get_ptr_mut(0)?;
        for word in 0..8 {
            // Volatile, or LLVM makes it a call that clears byte by byte.
            // SAFETY: within the value; see `query`.
            unsafe { words.cast::<u64>().add(word).write_volatile(0) };
        }
        query()
    }

    /// Whether the stack would send the packet of `ctx` on, which came by `self.ifindex`.
    #[inline(always)]
    pub fn would_be_forwarded(&mut self, ctx: *mut c_void) -> bool {
        /// It is, or its sender is told why not; to a tunnel of the route, too.
        const FORWARDED: [u32; 4] = [
            BPF_FIB_LKUP_RET_SUCCESS,
            BPF_FIB_LKUP_RET_NO_NEIGH,
            BPF_FIB_LKUP_RET_FRAG_NEEDED,
            BPF_FIB_LKUP_RET_UNSUPP_LWT,
        ];
        let answer = self.ask(ctx, 0);
        FORWARDED
            .iter()
            .any(|forwarded| answer == i64::from(*forwarded))
    }

    /// Whether the packet that came by `self.ifindex` would be sent on, which then names the
    /// interface by which.
    #[inline(always)]
    pub fn leads_on(&mut self, ctx: &XdpContext) -> bool {
        let answer = self.ask(ctx.as_ptr(), 0);
        answer == FOUND || answer == NO_NEIGHBOUR
    }

    /// The next hop of the packet that came by `self.ifindex`, if its Ethernet address is known.
    #[inline(always)]
    pub fn hop(&mut self, ctx: &XdpContext) -> Option<Hop> {
        self.hop_if(ctx, 0)
    }

    /// The next hop of a tunnel's outer packet of `length` bytes.
    #[inline(always)]
    pub fn outer_hop(
        &mut self,
        ctx: &XdpContext,
        egress: &TunnelEgress,
        tos: u8,
        length: u16,
    ) -> Option<Hop> {
        if outer::ether_type(egress) == ETH_P_IPV4 {
            self.family = Self::IPV4;
            self.flow = [tos, 0, 0, 0];
        } else {
            self.family = Self::IPV6;
            self.flow = [tos >> 4, tos << 4, 0, 0];
        }
        self.protocol = outer::protocol(egress);
        self.ports = [0; 4];
        self.length = length;
        self.ifindex = egress.underlay_ifindex;
        self.addresses = [words(&egress.local), words(&egress.remote)];
        self.hop_if(ctx, BPF_FIB_LOOKUP_OUTPUT)
    }

    #[inline(always)]
    fn hop_if(&mut self, ctx: &XdpContext, flags: u32) -> Option<Hop> {
        (self.ask(ctx.as_ptr(), flags) == FOUND).then_some(Hop {
            ifindex: self.ifindex,
            source_mac: self.source_mac,
            destination_mac: self.destination_mac,
        })
    }

    #[inline(always)]
    fn ask(&mut self, ctx: *mut c_void, flags: u32) -> i64 {
        let query: *mut bpf_fib_lookup = core::ptr::from_mut(self).cast();
        // SAFETY: the context of the very call, and a query of the length that is told.
        unsafe { generated::bpf_fib_lookup(ctx, query, size_of::<bpf_fib_lookup>() as i32, flags) }
    }
}

/// Word by word, as LLVM would call a function that copies byte by byte.
#[inline(always)]
fn words(address: &[u8; 16]) -> [u32; 4] {
    let word = |at: usize| {
        u32::from_ne_bytes([
            address[at],
            address[at + 1],
            address[at + 2],
            address[at + 3],
        ])
    };
    [word(0), word(4), word(8), word(12)]
}
