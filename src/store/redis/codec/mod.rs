//! Encoding of the stored data: keys, records, uses, and the scripts that access them.

pub(super) mod activity;
pub(super) mod interner;
pub(super) mod keys;
pub(super) mod record;
pub(super) mod scripts;
pub(super) mod text_codec;
