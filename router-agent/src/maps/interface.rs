//! Names of interfaces.

use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, SocketFlags, SocketType, netdevice::index_to_name, socket_with},
};

/// Knows interfaces by their index.
pub trait InterfaceNames {
    /// `None` if there is no such interface, at least not in this network namespace.
    fn name(&self, index: u32) -> Option<String>;
}

/// Asks the kernel.
#[derive(Debug)]
pub struct KernelInterfaces(Option<OwnedFd>);

impl KernelInterfaces {
    /// Names of this network namespace; if the kernel gives no socket, there are none.
    pub fn open() -> Self {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        );
        Self(socket.ok())
    }
}

impl InterfaceNames for KernelInterfaces {
    fn name(&self, index: u32) -> Option<String> {
        index_to_name(self.0.as_ref()?, index).ok()
    }
}
