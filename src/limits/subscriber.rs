//! The unit that limits by address count: one subscriber of a network provider.

use std::net::{IpAddr, Ipv6Addr};

/// The network of one subscriber: an IPv4 address, also one that is mapped into IPv6, or the /64 of
/// an IPv6 address. A provider assigns at least a /64, so its single addresses cost nothing.
pub fn subscriber_network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ipv6_addresses_count_by_their_64() {
        for (address, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:0:1::", "2001:db8:0:1::"),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::"),
            ("2001:db8:0:2::1", "2001:db8:0:2::"),
        ] {
            let network: IpAddr = network.parse().unwrap();
            assert_eq!(subscriber_network(address.parse().unwrap()), network);
        }
    }
}
