//! What is stored: keys, records and scripts, and their encoding.

pub(super) mod activity;
pub(super) mod interner;
pub(super) mod keys;
pub(super) mod record;
pub(super) mod scripts;
pub(super) mod text_codec;
