//! Provider tokens of sessions.
//!
//! A value is the version in six bytes and the sealed tokens.

use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::SessionId;
use crate::store::StoreError;
use crate::store::provider_tokens::{DroppedTokens, DroppedTokensSender, ReplacedTokens};
use crate::store::redis::codec::record::{ByteReader, encode_millis};
use crate::store::redis::{Redis, decode_reply};
use crate::telemetry::metrics::StoreOperation;

impl Redis {
    pub(in crate::store) async fn provider_tokens(
        &self,
        id: SessionId,
    ) -> Result<Option<SealedTokens>, StoreError> {
        let mut command = redis::cmd("GET");
        let reply = self
            .execute(command.arg(self.keys.provider_tokens(&id)))
            .await;
        let value: Option<Vec<u8>> = match reply.and_then(decode_reply) {
            // Another type counts as none, as in the scripts.
            Err(StoreError::Malformed) => None,
            value => value?,
        };
        let tokens = value.as_deref().map(decode_tokens);
        if tokens == Some(None) {
            self.count_malformed(StoreOperation::ProviderTokens, 1);
        }
        Ok(tokens.flatten())
    }

    pub(in crate::store) async fn put_provider_tokens(
        &self,
        id: SessionId,
        tokens: &SealedTokens,
        replaced: ReplacedTokens,
    ) -> Result<PutTokensOutcome, StoreError> {
        let keys = [self.keys.session(&id), self.keys.provider_tokens(&id)];
        let read = match replaced {
            ReplacedTokens::Version(version) => version.to_string(),
            ReplacedTokens::Older => String::new(),
        };
        let value = [&encode_millis(tokens.version)[..], &tokens.sealed].concat();
        let call = self.scripts.put_provider_tokens.call(&keys);
        let reply = self
            .run(call.arg(tokens.version).arg(read).arg(value))
            .await?;
        match decode_reply(reply)? {
            0 => Ok(PutTokensOutcome::Gone),
            1 => Ok(PutTokensOutcome::Changed),
            2 => Ok(PutTokensOutcome::Written),
            _ => Err(StoreError::Malformed),
        }
    }

    pub(in crate::store) fn dropped_tokens(&self) -> DroppedTokensSender {
        self.dropped_tokens.clone()
    }

    /// Reports the tokens that the end of a session has deleted.
    pub(in crate::store::redis) fn report_dropped_tokens(&self, session: SessionId, value: &[u8]) {
        if let Some(tokens) = decode_tokens(value) {
            self.dropped_tokens.send(DroppedTokens { session, tokens });
        }
    }
}

fn decode_tokens(value: &[u8]) -> Option<SealedTokens> {
    let mut reader = ByteReader(value);
    Some(SealedTokens {
        version: reader.number(6)?,
        sealed: reader.0.into(),
    })
}
