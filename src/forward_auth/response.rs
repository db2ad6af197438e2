//! What each dialect makes of a response.

use http::{HeaderValue, StatusCode};

use crate::pipeline::local_response::LocalResponse;
use crate::pipeline::own_field::PORTCULLIS_STATUS;
use crate::telemetry::metrics::Dialect;

/// Gives a response the form that a front proxy of this dialect understands. nginx turns every other status
/// than 2xx, 401 and 403 into 500, so that it receives the real one in `X-Portcullis-Status`; and it drops
/// every body, and with it the connection.
pub fn adapt(response: &mut LocalResponse, dialect: Dialect) {
    let real = response.status;
    if dialect != Dialect::AuthRequest || real == StatusCode::OK {
        return;
    }
    let leads_to_sign_in = real == StatusCode::SEE_OTHER;
    response.status = match real {
        StatusCode::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
        _ if leads_to_sign_in => StatusCode::UNAUTHORIZED,
        _ => StatusCode::FORBIDDEN,
    };
    let real = match leads_to_sign_in {
        true => StatusCode::UNAUTHORIZED,
        false => real,
    };
    response.add(&PORTCULLIS_STATUS.name, &HeaderValue::from(real.as_u16()));
    response.leave_out_body();
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn nginx_receives_401_and_403_alone() {
        for (real, sent, auth_request) in [
            (200, 200, 200),
            (303, 303, 401),
            (400, 400, 403),
            (401, 401, 401),
            (403, 403, 403),
            (404, 404, 403),
            (429, 429, 403),
            (503, 503, 403),
        ] {
            for (dialect, expected) in [
                (Dialect::AuthRequest, auth_request),
                (Dialect::ForwardAuth, sent),
                (Dialect::ExtAuthz, sent),
            ] {
                let status = StatusCode::from_u16(real).unwrap_or_default();
                let mut response = LocalResponse::new(status, Vec::new(), Bytes::new());
                adapt(&mut response, dialect);
                assert_eq!(response.status.as_u16(), expected, "{real} {dialect:?}");
            }
        }
    }
}
