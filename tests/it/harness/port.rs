//! Loopback ports that no other test of this machine is given at the same time.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// A free TCP port. The UDP port of the same number is held as the claim on it: tests run as threads and as processes.
pub struct Port {
    _claim: UdpSocket,
    address: SocketAddr,
}

impl Port {
    /// Claims a port below the range from which the kernel takes the source ports of connections.
    pub fn claim() -> Self {
        loop {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_240..32_000)));
            if let Ok(claim) = UdpSocket::bind(address)
                && TcpListener::bind(address).is_ok()
            {
                return Self { _claim: claim, address };
            }
        }
    }

    /// Nobody listens here until the holder does.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
