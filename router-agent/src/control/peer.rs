//! Who is at the other end of a Unix socket, as the kernel tells.

use std::{io, os::fd::AsRawFd as _};

use tokio::net::UnixStream;

/// A process's user and groups when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary ones.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Of a stream that somebody connected.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            groups: supplementary_groups(stream)?,
        })
    }

    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// `SO_PEERGROUPS`, since Linux 4.13: of a place that is too small it tells the size.
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    const USUAL: usize = 32;
    let mut groups = vec![0_u32; USUAL];
    loop {
        let bytes = size_of_val(&*groups);
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the kernel writes no more than `length` bytes to the buffer, which has them.
        let outcome = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        match outcome {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                    groups.resize(count, 0);
                }
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getegid, geteuid, getgroups};

    use super::*;

    #[tokio::test]
    async fn the_kernel_tells_this_process_of_itself() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&stream).unwrap();
        assert_eq!(peer.uid, geteuid().as_raw());
        assert_eq!(peer.gid, getegid().as_raw());
        let mut own: Vec<_> = getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        own.sort_unstable();
        let mut told = peer.groups.clone();
        told.sort_unstable();
        assert_eq!(told, own);
        assert!(peer.is_in(peer.gid));
    }
}
