//! The health of the gateway, by which Envoy chooses among gateways (gRPC Health Checking Protocol).

use bytes::Bytes;

use super::framing::frame;

/// The path of the method that responds at once.
pub const CHECK_HEALTH: &str = "/grpc.health.v1.Health/Check";

/// `HealthCheckResponse`, whatever the service in the request.
#[derive(Clone, PartialEq, prost::Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// The body of a response.
pub fn health(is_serving: bool) -> Bytes {
    let status = match is_serving {
        true => SERVING,
        false => NOT_SERVING,
    };
    frame(&Health { status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_that_of_the_protocol() {
        assert_eq!(health(true), [0, 0, 0, 0, 2, 8, 1][..]);
        assert_eq!(health(false), [0, 0, 0, 0, 2, 8, 2][..]);
    }
}
