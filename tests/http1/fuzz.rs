//! The oracles of the fuzz targets over their corpus and over mutations of it, the same in every run.
//! `PORTCULLIS_FUZZ_INPUTS` is the number of mutations for each target.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use portcullis::proxy::connection::chunked::Chunks;
use portcullis::proxy::connection::head::response::ResponseHead;
use portcullis::proxy::connection::head::{HeadReader, Progress};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use redis::ValueCodec;
use tokio_util::codec::Decoder;

use crate::oracles;

const INPUTS: u64 = 2000;
/// Parts of messages that are inserted.
const WORDS: [&[u8]; 20] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\"",
    b"\xff",
    b"0",
    b"Host: x\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.1",
    b"http://",
    b"0\r\n\r\n",
    b"-1",
];

#[track_caller]
fn run(target: &str, oracle: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder.join(target))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let corpus: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    for input in &corpus {
        check(oracle, input);
    }
    let inputs = std::env::var("PORTCULLIS_FUZZ_INPUTS");
    let inputs = inputs.map_or(INPUTS, |text| text.parse().unwrap());
    for seed in 0..inputs {
        check(oracle, &mutated(&corpus, &mut StdRng::seed_from_u64(seed)));
    }
}

/// Shows the input with which the oracle panics.
fn check(oracle: fn(&[u8]), input: &[u8]) {
    struct Shown<'a>(&'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input: \"{}\"", self.0.escape_ascii());
            }
        }
    }
    let shown = Shown(input);
    oracle(shown.0);
}

fn mutated(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = corpus.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=3) {
        let at = random.random_range(0..=bytes.len());
        let end = bytes.len().min(at + random.random_range(0..8));
        let new = match random.random_range(0..6) {
            0 => vec![random.random()],
            1 => bytes[at..end].repeat(2),
            2 => Vec::new(),
            3 => {
                let other = corpus.choose(random).unwrap();
                other[random.random_range(0..=other.len())..].to_vec()
            }
            _ => {
                let word = WORDS.choose(random).unwrap().to_vec();
                bytes.splice(at..at, word);
                continue;
            }
        };
        bytes.splice(at..end, new);
    }
    bytes
}

#[test]
fn any_bytes_are_read_as_a_request_head() {
    run("request_head", oracles::request_head);
}

#[test]
fn any_bytes_are_read_as_a_response_head() {
    run("response_head", oracles::response_head);
}

#[test]
fn any_bytes_are_read_as_chunks() {
    run("chunked", oracles::chunked);
}

#[test]
fn any_bytes_are_read_as_replies() {
    run("replies", oracles::replies);
}

/// Time of the processor in which two mebibytes are read byte by byte. In quadratic time, it would be
/// more than twice as much.
const LINEAR: Duration = Duration::from_secs(6);

/// The time for which this thread has run, however busy the machine is.
fn processor_time() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = times.split(' ').next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

#[test]
fn heads_that_come_byte_by_byte_are_read_in_linear_time() {
    let one_line = format!("A: {}", "b".repeat(1 << 21));
    let many_lines = "A: b\r\n".repeat(1 << 17);
    let folds = format!("A: b\r\n{}", " \r\n".repeat(1 << 18));
    let since = processor_time();
    for fields in [&one_line, &many_lines] {
        let mut reader = HeadReader::new(usize::MAX);
        reader.extend(b"GET / HTTP/1.1\r\nHost: x\r\n");
        for byte in fields.as_bytes() {
            reader.extend(&[*byte]);
            assert_eq!(reader.read(), Ok(Progress::Partial));
        }
    }
    for fields in [&one_line, &many_lines, &folds] {
        let mut head = ResponseHead::default();
        let _ = head.read(b"HTTP/1.1 200 OK\r\n");
        // The head is bounded.
        fields
            .as_bytes()
            .iter()
            .find(|byte| head.read(&[**byte]).is_err());
    }
    let time = processor_time() - since;
    assert!(time < LINEAR, "{time:?}");
}

#[test]
fn chunks_that_come_byte_by_byte_are_read_in_linear_time() {
    let since = processor_time();
    for body in [
        "1\r\na\r\n".repeat(1 << 17),
        format!("100000\r\n{}", "a".repeat(1 << 20)),
    ] {
        let mut chunks = Chunks::default();
        for byte in body.as_bytes() {
            assert_eq!(chunks.decode(&[*byte], |_| ()), Ok(1));
        }
    }
    let time = processor_time() - since;
    assert!(time < LINEAR, "{time:?}");
}

#[test]
fn replies_that_come_byte_by_byte_are_read_in_linear_time() {
    let since = processor_time();
    let long = format!("$1000000000\r\n{}", "a".repeat(1 << 19));
    let many = format!("*1000000\r\n{}", ":1\r\n".repeat(1 << 16));
    for reply in [long, many] {
        let (mut codec, mut incoming) = (ValueCodec::default(), BytesMut::new());
        for byte in reply.as_bytes() {
            incoming.extend_from_slice(&[*byte]);
            assert!(codec.decode(&mut incoming).unwrap().is_none());
        }
    }
    let time = processor_time() - since;
    assert!(time < LINEAR, "{time:?}");
}
