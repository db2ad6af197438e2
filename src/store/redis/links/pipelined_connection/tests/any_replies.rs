//! Replies and bytes that are none, in any order and in pieces of any length.

use bytes::BytesMut;
use proptest::prelude::*;
use tokio_util::codec::Decoder;

use super::*;

/// Replies, and parts that are none.
const PARTS: [&str; 12] = [
    "+OK\r\n",
    ":1\r\n",
    "$3\r\na\r\n\r\n",
    "$-1\r\n",
    "*2\r\n:1\r\n*1\r\n+a\r\n",
    "-ERR it is\r\n",
    "*-1\r\n",
    ">1\r\n+a\r\n",
    "$2\r\n",
    "\r\n",
    "?",
    "*1\r\n",
];

/// The replies at the beginning of these bytes, before a push or a malformed one.
fn valid_replies(bytes: &str) -> Vec<Value> {
    let (mut codec, mut bytes) = (redis::ValueCodec::default(), BytesMut::from(bytes));
    let replies = std::iter::from_fn(|| match codec.decode(&mut bytes) {
        Ok(Some(Value::Push { .. })) | Ok(None) | Err(_) => None,
        Ok(reply) => reply,
    });
    replies.collect()
}

proptest! {
    /// Whatever arrives, in pieces of any length: the callers receive the valid replies in their order,
    /// and none waits for more once the connection has ended.
    #[test]
    fn any_bytes_are_replies_in_order_or_the_end(
        parts in prop::collection::vec((0..PARTS.len(), 0..3_u8), 0..8),
        cut in 1..12_usize,
    ) {
        // Most are replies.
        let parts = parts.iter().map(|(part, rare)| match rare {
            0 => PARTS[*part],
            _ => PARTS[part % 7],
        });
        let bytes = parts.collect::<String>();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let outcomes = runtime.unwrap().block_on(async {
            let (connection, mut server) = connect(4096);
            let (one, mut several) = (echo("1"), redis::pipe());
            several.cmd("ECHO").arg("2").cmd("ECHO").arg("3");
            let feed = async {
                for piece in bytes.as_bytes().chunks(cut) {
                    settle().await;
                    let _ = server.write_all(piece).await;
                }
                settle().await;
                drop(server);
            };
            let (first, two, last, ()) = tokio::join!(
                connection.send(&one), connection.send_all(&several), connection.send(&one), feed
            );
            [vec![first], flatten(two), vec![last]].concat()
        });
        let expected = valid_replies(&bytes);
        for (index, outcome) in outcomes.iter().enumerate() {
            // Both replies to the second caller have to arrive.
            let is_whole = expected.len() > if index == 1 { 2 } else { index };
            if is_whole {
                let reply = expected[index].clone().extract_error();
                prop_assert_eq!(outcome, &reply, "{}: {:?}", index, bytes);
            }
        }
    }
}

/// The outcome of each of two commands.
fn flatten(replies: RedisResult<Vec<Value>>) -> Vec<RedisResult<Value>> {
    match replies {
        Ok(replies) => replies.into_iter().map(Value::extract_error).collect(),
        Err(error) => vec![Err(error); 2],
    }
}
