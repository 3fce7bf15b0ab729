//! Stream sockets with the options that storage traffic wants.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Connections that the kernel keeps until they are accepted: a whole pool of hosts may log in
/// at once after a failover.
const BACKLOG: i32 = 1024;

/// When the kernel gives a silent peer up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Sent data may stay unacknowledged for so long, or the peer's window closed.
    pub unacknowledged: Duration,
    /// An idle connection is probed after this time, and then as often.
    pub idle: Duration,
    /// Probes without an answer until the connection is closed.
    pub probes: u32,
}

/// A socket that listens at this address (connections in `TIME_WAIT` do not hinder it).
///
/// # Errors
/// As of `bind` and `listen`: `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`.
pub fn listen(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = stream(address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A socket to connect to this address.
///
/// # Errors
/// No descriptors or no such address family.
pub fn stream(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )
}

/// A socket to connect from this address of ours, by a port that the kernel chooses.
///
/// # Errors
/// As [`stream`], and of `bind`: `EADDRNOTAVAIL` if the address is not ours now.
pub fn stream_from(local: IpAddr) -> Result<OwnedFd, Errno> {
    let address = SocketAddr::new(local, 0);
    let socket = stream(address)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Sends at once, and notices a peer that has gone.
///
/// # Errors
/// The socket is not a TCP socket.
pub fn set_options(socket: impl AsFd, patience: Patience) -> Result<(), Errno> {
    let socket = socket.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, patience.idle)?;
    sockopt::set_tcp_keepintvl(socket, patience.idle)?;
    sockopt::set_tcp_keepcnt(socket, patience.probes)?;
    let millis = u32::try_from(patience.unacknowledged.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(socket, millis)
}

/// The other end.
///
/// # Errors
/// `ENOTCONN`: it is gone already.
pub fn peer(socket: impl AsFd) -> Result<SocketAddr, Errno> {
    rustix::net::getpeername(socket)?
        .and_then(|any| SocketAddr::try_from(any).ok())
        .ok_or(Errno::NOTCONN)
}

/// This end; of a listening socket the address with the port that the kernel chose.
///
/// # Errors
/// Not an internet socket.
pub fn local(socket: impl AsFd) -> Result<SocketAddr, Errno> {
    SocketAddr::try_from(rustix::net::getsockname(socket)?).map_err(|_| Errno::AFNOSUPPORT)
}

/// When it is closed, the peer is told at once, and what was not sent is dropped.
pub fn reset_when_closed(socket: impl AsFd) {
    // Fails only for what is no socket.
    let _never = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Says that no more will be sent.
pub fn finish(socket: impl AsFd) {
    // Fails only when the connection is gone, which is as good.
    let _gone = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
}

/// Ends a connection in both directions, or makes a listening socket refuse; operations in
/// progress on it complete soon.
pub fn shut(socket: impl AsFd) {
    // As above.
    let _gone = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}
