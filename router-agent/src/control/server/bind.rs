//! Takes the control socket's place in the file system, without taking it from a living agent.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _},
        net::UnixListener as StdUnixListener,
    },
    path::Path,
};

use rustix::{
    fs::{chmod, fchmod},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};
use tokio::net::UnixListener;

use crate::control::permission::Access;

const DIRECTORY_MODE: u32 = 0o755;
const BACKLOG: i32 = 128;

/// Listens at `path`: makes its directory (0755) if need be, clears away a socket on which nobody
/// listens, and leaves one that lets in whom `access` means. Fails with `AddrInUse` if an agent listens
/// there.
///
/// Must be called within a tokio runtime.
pub fn bind(path: &Path, access: &Access) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(|error| explain(&error, "cannot create the directory", directory))?;
    }
    remove_stale(path)?;
    let address = SocketAddrUnix::new(path)?;
    let socket = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // Before the bind, so that the socket is at no moment open to others: the file takes the
    // socket's mode less the umask (Linux, net/unix/af_unix.c, unix_bind_bsd).
    let mode = access.file_mode();
    fchmod(&socket, mode)?;
    rustix::net::bind(&socket, &address)
        .map_err(|error| explain(&error.into(), "cannot bind the control socket", path))?;
    // And after it, since the umask may have taken bits.
    chmod(path, mode)?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(StdUnixListener::from(socket))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(&error, "cannot look at", path)),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} exists and is no socket", path.display()),
        ));
    }
    let probe = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        // With a full backlog somebody listens all the same.
        Ok(()) | Err(Errno::AGAIN) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another agent listens on {}", path.display()),
        )),
        Err(Errno::CONNREFUSED) => fs::remove_file(path)
            .map_err(|error| explain(&error, "cannot remove the stale socket", path)),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(explain(&error.into(), "cannot tell who listens on", path)),
    }
}

fn stream_socket(flags: SocketFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn explain(error: &io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}
