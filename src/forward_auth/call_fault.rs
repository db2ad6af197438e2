//! What is wrong with a call.

use crate::rejection::{DisclosedDetails, Reason, Refusal, Rejection};

/// What is wrong with a call. Nothing has been evaluated or spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFault(pub &'static str);

impl From<CallFault> for Rejection {
    fn from(CallFault(text): CallFault) -> Rejection {
        Rejection {
            disclosed: Some(Box::new(DisclosedDetails {
                message: Some(text),
                ..DisclosedDetails::default()
            })),
            ..Rejection::new(Refusal::BadRequest, Reason::Call(text))
        }
    }
}

/// The faults of a field that names a part of the original request.
#[derive(Debug)]
pub(super) struct FieldFaults {
    pub(super) missing: CallFault,
    pub(super) repeated: CallFault,
    pub(super) malformed: CallFault,
}

/// The faults of a field of this name.
macro_rules! field_faults {
    ($name:literal) => {
        FieldFaults {
            missing: CallFault(concat!($name, " is missing.")),
            repeated: CallFault(concat!($name, " is repeated.")),
            malformed: CallFault(concat!($name, " is malformed.")),
        }
    };
}

pub(super) const ORIGINAL_METHOD: FieldFaults = field_faults!("X-Original-Method");
pub(super) const ORIGINAL_URL: FieldFaults = field_faults!("X-Original-URL");
pub(super) const FORWARDED_METHOD: FieldFaults = field_faults!("X-Forwarded-Method");
pub(super) const FORWARDED_PROTO: FieldFaults = field_faults!("X-Forwarded-Proto");
pub(super) const FORWARDED_HOST: FieldFaults = field_faults!("X-Forwarded-Host");
pub(super) const FORWARDED_URI: FieldFaults = field_faults!("X-Forwarded-Uri");
pub(super) const FORWARDED_FOR: FieldFaults = field_faults!("X-Forwarded-For");
/// Of the fields of Envoy's calls that are not fields of the original request.
pub(super) const METHOD: FieldFaults = field_faults!("The method");
pub(super) const SCHEME: FieldFaults = field_faults!("The scheme");
pub(super) const HOST: FieldFaults = field_faults!("The host");
pub(super) const PATH: FieldFaults = field_faults!("The path");
/// A name that only the gateway may write.
pub(super) const RESERVED_NAME: CallFault =
    CallFault("The request has a header whose name is reserved for the gateway.");
