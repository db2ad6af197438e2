#![no_main]

#[path = "../oracles.rs"]
#[expect(dead_code, reason = "there is one oracle per target")]
mod oracles;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracles::response_head(input));
