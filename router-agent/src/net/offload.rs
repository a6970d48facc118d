//! What a device's driver does in the stack's place, by the ethtool ioctl.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// As the C library's `ioctl` takes it; they differ.
const ETHTOOL: libc::Ioctl = libc::SIOCETHTOOL as libc::Ioctl;

// linux/ethtool.h
const GET_DRIVER_INFO: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const FLAG_TX_VLAN: u32 = 1 << 7;
const FLAG_RX_VLAN: u32 = 1 << 8;

/// Work that can be left to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of what is sent. Without it the driver gets nothing longer than the MTU either,
    /// whatever the protocol.
    TxChecksum,
    /// Cutting TCP segments: the driver's.
    Tso,
    /// Cutting segments late in the stack.
    Gso,
    /// Joining segments that arrive. On a veth it also turns on NAPI, which a redirect by XDP into
    /// this end needs.
    Gro,
    /// Customer VLAN tags (802.1Q) of what is sent.
    TxVlan,
    /// Customer VLAN tags of what arrives, which XDP then does not see.
    RxVlan,
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    others: [u8; 160],
}

const _: () = assert!(size_of::<EthtoolValue>() == 8 && size_of::<DriverInfo>() == 196);

/// Asks drivers, in the network namespace of the thread that opened it.
#[derive(Clone, Debug)]
pub struct Ethtool {
    socket: Arc<OwnedFd>,
}

impl Ethtool {
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self {
            socket: Arc::new(socket),
        })
    }

    pub fn set(&self, interface: &str, offload: Offload, on: bool) -> io::Result<()> {
        let command = match offload {
            Offload::TxChecksum => 0x17,
            Offload::Tso => 0x1f,
            Offload::Gso => 0x24,
            Offload::Gro => 0x2c,
            Offload::TxVlan => return self.set_flag(interface, FLAG_TX_VLAN, on),
            Offload::RxVlan => return self.set_flag(interface, FLAG_RX_VLAN, on),
        };
        let data = u32::from(on);
        self.call(interface, &mut EthtoolValue { command, data })
    }

    fn set_flag(&self, interface: &str, flag: u32, on: bool) -> io::Result<()> {
        let mut value = EthtoolValue {
            command: GET_FLAGS,
            data: 0,
        };
        self.call(interface, &mut value)?;
        let data = if on {
            value.data | flag
        } else {
            value.data & !flag
        };
        if data == value.data {
            return Ok(());
        }
        let command = SET_FLAGS;
        self.call(interface, &mut EthtoolValue { command, data })
    }

    /// Name of the driver: `ena`, `veth`.
    pub fn driver(&self, interface: &str) -> io::Result<String> {
        let mut info = DriverInfo {
            command: GET_DRIVER_INFO,
            driver: [0; 32],
            others: [0; 160],
        };
        self.call(interface, &mut info)?;
        let name = info.driver.split(|byte| *byte == 0).next();
        Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
    }

    /// `argument` is one of the structures of linux/ethtool.h, its command set.
    fn call<T>(&self, interface: &str, argument: &mut T) -> io::Result<()> {
        if interface.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a plain structure, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = std::ptr::from_mut(argument).cast();
        // SAFETY: `request` and the argument live through the call, and the argument is as long as
        // its command says.
        let outcome = unsafe { libc::ioctl(self.socket.as_raw_fd(), ETHTOOL, &raw mut request) };
        if outcome < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
