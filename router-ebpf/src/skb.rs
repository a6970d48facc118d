//! A packet of the stack, read by helpers: its bytes may lie in several pieces.

use aya_ebpf::programs::TcContext;
use bytemuck::Pod;
use router_common::packet::Packet;

/// The packet of a [`TcContext`], from its Ethernet header.
#[derive(Clone, Copy)]
pub struct Skb<'a>(pub &'a TcContext);

impl Skb<'_> {
    /// EtherType, behind a VLAN tag that the kernel keeps apart.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        // SAFETY: the context of this very call.
        u16::from_be(unsafe { (*self.0.skb.skb).protocol } as u16)
    }

    /// The VLAN tag that the kernel keeps apart: (TPID, TCI).
    #[inline(always)]
    pub fn vlan(self) -> Option<(u16, u16)> {
        // SAFETY: the context of this very call.
        unsafe {
            let skb = self.0.skb.skb;
            ((*skb).vlan_present != 0).then(|| {
                (
                    u16::from_be((*skb).vlan_proto as u16),
                    (*skb).vlan_tci as u16,
                )
            })
        }
    }

    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context of this very call.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    /// The interface by which it came; zero if this host made it.
    #[inline(always)]
    pub fn ingress_ifindex(self) -> u32 {
        // SAFETY: the context of this very call.
        unsafe { (*self.0.skb.skb).ingress_ifindex }
    }

    /// Whether it stands for several packets, to be cut apart later.
    #[inline(always)]
    pub fn is_gso(self) -> bool {
        // SAFETY: the context of this very call.
        unsafe { (*self.0.skb.skb).gso_size != 0 }
    }

    #[inline(always)]
    pub fn mark(self) -> u32 {
        // SAFETY: the context of this very call.
        unsafe { (*self.0.skb.skb).mark }
    }

    #[inline(always)]
    pub fn write<T: Pod>(self, offset: usize, value: &T) -> Option<()> {
        self.0.store(offset, value, 0).ok()
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        self.0.load(offset).ok()
    }
}
