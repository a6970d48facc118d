//! What a device's driver does in the stack's place, by the ethtool ioctl.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, OnceLock},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// As the C library's `ioctl` takes it; they differ.
const ETHTOOL: libc::Ioctl = libc::SIOCETHTOOL as libc::Ioctl;

// linux/ethtool.h
const GET_DRIVER_INFO: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const SET_FEATURES: u32 = 0x3b;
/// The set of strings that are the names of features.
const FEATURES: u32 = 4;
const NAME_LENGTH: usize = 32;
/// More than any kernel has; a multiple of what a word holds.
const MOST_FEATURES: usize = 256;
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

/// `struct ethtool_sset_info`.
#[repr(C)]
struct SetInfo {
    command: u32,
    reserved: u32,
    mask: u64,
    count: u32,
    padding: u32,
}

/// `struct ethtool_gstrings`.
#[repr(C)]
struct Strings {
    command: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME_LENGTH]; MOST_FEATURES],
}

/// `struct ethtool_sfeatures`: which of 32 features are to be set, and to what.
#[repr(C)]
struct Features {
    command: u32,
    words: u32,
    valid_and_requested: [[u32; 2]; MOST_FEATURES / 32],
}

const _: () = assert!(size_of::<EthtoolValue>() == 8 && size_of::<DriverInfo>() == 196);
const _: () = assert!(size_of::<SetInfo>() == 24 && size_of::<Features>() == 8 + 64);
const _: () = assert!(size_of::<Strings>() == 12 + NAME_LENGTH * MOST_FEATURES);

/// Asks drivers, in the network namespace of the thread that opened it.
#[derive(Clone, Debug)]
pub struct Ethtool {
    socket: Arc<OwnedFd>,
    /// The names of this kernel's features, in the order of their bits.
    features: Arc<OnceLock<Vec<String>>>,
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
            features: Arc::default(),
        })
    }

    /// Turns features of an interface off, by the names that `ethtool -k` shows. What this kernel does not know,
    /// it does not do; what the device has fixed, stays.
    pub fn turn_off(&self, interface: &str, names: &[&str]) -> io::Result<()> {
        let features = if let Some(features) = self.features.get() {
            features
        } else {
            let read = self.feature_names(interface)?;
            self.features.get_or_init(|| read)
        };
        let mut request = Features {
            command: SET_FEATURES,
            words: u32::try_from(features.len().div_ceil(32)).unwrap_or(0),
            valid_and_requested: [[0; 2]; MOST_FEATURES / 32],
        };
        for (bit, feature) in features.iter().enumerate() {
            if names.contains(&&**feature) {
                request.valid_and_requested[bit / 32][0] |= 1 << (bit % 32);
            }
        }
        self.call(interface, &mut request)
    }

    fn feature_names(&self, interface: &str) -> io::Result<Vec<String>> {
        let mut info = SetInfo {
            command: GET_SET_INFO,
            reserved: 0,
            mask: 1 << FEATURES,
            count: 0,
            padding: 0,
        };
        self.call(interface, &mut info)?;
        if info.count as usize > MOST_FEATURES {
            // The kernel would write them all.
            return Err(io::Error::other(format!("it has {} features", info.count)));
        }
        let mut strings = Box::new(Strings {
            command: GET_STRINGS,
            set: FEATURES,
            count: info.count,
            names: [[0; NAME_LENGTH]; MOST_FEATURES],
        });
        self.call(interface, &mut *strings)?;
        let names = strings.names.iter().take(info.count as usize);
        Ok(names.map(|name| until_zero(name)).collect())
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
        Ok(until_zero(&info.driver))
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

fn until_zero(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
