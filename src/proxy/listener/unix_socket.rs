//! Unix sockets of front proxies, by their files.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// The gateway's user and group may connect.
const MODE: u32 = 0o660;

/// Binds a socket. Replaces one that no process listens to.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(existing) = std::fs::symlink_metadata(path) {
        let is_stale = existing.file_type().is_socket() && UnixStream::connect(path).is_err();
        if !is_stale {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes the file, so that a later process finds none, and no connection is attempted.
pub(super) fn remove(listener: &UnixListener) -> io::Result<()> {
    match listener.local_addr()?.as_pathname() {
        Some(path) => std::fs::remove_file(path),
        None => Ok(()),
    }
}
