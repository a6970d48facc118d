//! A packet of the stack, read by helpers: its bytes may lie in several pieces.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_hdr_start_off, helpers::generated::bpf_skb_load_bytes_relative,
    programs::TcContext,
};
use bytemuck::Pod;
use router_common::{
    net::{Ethernet, Ipv6},
    packet::Packet,
};

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

    /// The interface by which it came; zero if this host made it, or made it anew of what came.
    #[inline(always)]
    pub fn ingress_ifindex(self) -> u32 {
        // SAFETY: the context of this very call.
        unsafe { (*self.0.skb.skb).ingress_ifindex }
    }

    /// Whether a socket of this host sends it.
    #[inline(always)]
    pub fn has_socket(self) -> bool {
        // SAFETY: the context of this very call.
        let socket = unsafe { (*self.0.skb.skb).__bindgen_anon_2.sk };
        !socket.is_null()
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

    /// Reads `offset` bytes behind the start of the IP header, wherever that is: not every device has
    /// Ethernet headers.
    #[inline(always)]
    pub fn read_ip<T: Pod>(self, offset: usize) -> Option<T> {
        /// An Ethernet header, or none, and the longer of the two IP headers.
        const HEADERS: u32 = (Ethernet::LEN + Ipv6::LEN) as u32;
        self.load_ip(offset).or_else(|| {
            // The helper takes only what lies in the first piece. If this fails, that does again.
            let _ = self.0.pull_data(self.0.len().min(HEADERS));
            self.load_ip(offset)
        })
    }

    #[inline(always)]
    fn load_ip<T: Pod>(self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the context of this very call, and room for as many bytes as are told.
        let status = unsafe {
            bpf_skb_load_bytes_relative(
                self.0.as_ptr(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                bpf_hdr_start_off::BPF_HDR_START_NET,
            )
        };
        // SAFETY: the helper has filled it, and any bytes are a value.
        (status == 0).then(|| unsafe { value.assume_init() })
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
