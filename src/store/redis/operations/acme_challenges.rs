//! Responses to challenges of certificate authorities.

use crate::store::StoreError;
use crate::store::acme_challenges::RESPONSE_TTL;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};

impl Redis {
    pub(in crate::store) async fn acme_response(
        &self,
        name: &str,
    ) -> Result<Option<String>, StoreError> {
        let mut command = redis::cmd("GET");
        let command = command.arg(self.keys.acme_challenge(name));
        decode_reply(self.execute(command).await?)
    }

    pub(in crate::store) async fn put_acme_response(
        &self,
        name: &str,
        response: Option<&str>,
    ) -> Result<(), StoreError> {
        let key = self.keys.acme_challenge(name);
        let command = match response {
            Some(response) => {
                let mut set = redis::cmd("SET");
                let seconds = RESPONSE_TTL.as_secs();
                set.arg(key).arg(response).arg("EX").arg(seconds);
                set
            }
            None => {
                let mut delete = redis::cmd("DEL");
                delete.arg(key);
                delete
            }
        };
        exchange_error::reject_server_error(self.execute(&command).await?).map(drop)
    }
}
