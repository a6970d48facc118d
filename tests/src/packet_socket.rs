//! Where a packet socket sends, and what it sees: packet(7).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Result, ensure};

/// An interface by its index, and an EtherType; zero for none.
pub fn address(interface: u32, protocol: u16) -> Result<libc::sockaddr_ll> {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET)?;
    // In network order.
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(interface)?;
    Ok(address)
}

/// From now on the socket sees what passes that interface alone.
pub fn bind(socket: &OwnedFd, interface: u32, protocol: u16) -> Result<()> {
    let address = address(interface, protocol)?;
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: `address` lives through the call, and its length is given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    let error = io::Error::last_os_error();
    ensure!(bound == 0, "cannot bind a packet socket: {error}");
    Ok(())
}
