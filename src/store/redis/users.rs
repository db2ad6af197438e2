//! A user's sessions together: their index, and what is done to all of them.

use std::time::Duration;

use redis::Value;

use super::super::page::{parse_place, place};
use super::super::sessions::Identity;
use super::super::{Created, StoreError};
use super::sessions::{ALIVE, ENDED_NOW, MISSING, ending};
use super::{Redis, clock, fault, read, record};
use crate::session::{EndReason, Millis, OnLimit, Session, SessionId};

/// How long a session stays tellable after its end, in milliseconds.
const KEPT_AFTER: Millis = 3_600_000;
/// A sign-in that has entered its session and not written it after so long never will.
const ABANDONED_AFTER: Millis = 10_000;

/// What `sign_in.lua` did.
enum Entered {
    In {
        victims: Vec<String>,
        forgotten: Vec<String>,
    },
    Rejected {
        alive: Vec<String>,
    },
}

impl Redis {
    /// Two steps: the index, in the user's slot, says who stays; then the sessions themselves
    /// follow. A sign-in that is chosen to go before its session is written finds a mark there.
    ///
    /// Where the index is full, those come off it first that are over. The index alone decides,
    /// whatever happens meanwhile.
    pub(in super::super) async fn create_session(
        &self,
        session: &Session,
        max: u32,
        on_limit: OnLimit,
        idle: Option<Duration>,
    ) -> Result<Created, StoreError> {
        let mut entered = self.enter(session, max, OnLimit::Reject).await?;
        if let Entered::Rejected { alive } = &entered {
            let room = self.make_room(session, alive, idle).await?;
            if !room && on_limit == OnLimit::Reject {
                return Ok(Created::LimitReached);
            }
            entered = self.enter(session, max, on_limit).await?;
        }
        let Entered::In { victims, forgotten } = entered else {
            return Ok(Created::LimitReached);
        };
        let victims: Vec<SessionId> = ids(&victims);
        let mut calls: Vec<_> = victims
            .iter()
            .map(|id| self.ending(id, Some(EndReason::Evicted), idle, true))
            .collect();
        let key = [self.keys.session(&session.id)];
        let mut writing = self.scripts.write_session.on(&key);
        writing = writing.arg(session.expires_at.saturating_add(KEPT_AFTER));
        for (field, value) in record::fields(session) {
            writing = writing.arg(field).arg(value);
        }
        calls.push(writing);
        let mut replies = self.run_all(calls).await?;
        fault::settled(replies.pop().ok_or(StoreError::Malformed)?)?;
        let mut evicted = Vec::with_capacity(victims.len());
        for (id, reply) in victims.into_iter().zip(replies) {
            if ending(reply)?.0 == ENDED_NOW {
                evicted.push(id);
            }
        }
        self.forget(&forgotten).await?;
        Ok(Created::Created { evicted })
    }

    async fn enter(
        &self,
        session: &Session,
        max: u32,
        on_limit: OnLimit,
    ) -> Result<Entered, StoreError> {
        let call = self
            .scripts
            .sign_in
            .on(&self.keys.user(&session.user))
            .arg(place(session.created_at, &session.id))
            .arg(session.expires_at)
            .arg(max)
            .arg(u8::from(on_limit == OnLimit::Reject));
        let Value::Array(parts) = self.run(call).await? else {
            return Err(StoreError::Malformed);
        };
        match <[Value; 3]>::try_from(parts) {
            Ok([_, victims, forgotten]) => Ok(Entered::In {
                victims: read(victims)?,
                forgotten: read(forgotten)?,
            }),
            Err(mut parts) => Ok(Entered::Rejected {
                alive: read(parts.pop().ok_or(StoreError::Malformed)?)?,
            }),
        }
    }

    /// Takes those off the index that are over: idle for too long, ended where the index could not
    /// be told, or never written. Tells whether there were any.
    async fn make_room(
        &self,
        session: &Session,
        alive: &[String],
        idle: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let mut places: Vec<(Millis, SessionId)> =
            alive.iter().filter_map(|p| parse_place(p)).collect();
        let calls = places
            .iter()
            .map(|(_, id)| self.ending(id, None, idle, false));
        let mut outcomes = Vec::with_capacity(places.len());
        for reply in self.run_all(calls.collect()).await? {
            outcomes.push(ending(reply)?.0);
        }
        let mut outcomes = outcomes.into_iter();
        places.retain(|(created_at, _)| match outcomes.next() {
            None | Some(ALIVE) => false,
            Some(MISSING) => created_at.saturating_add(ABANDONED_AFTER) < session.created_at,
            Some(_) => true,
        });
        self.retire(&session.user, &places).await?;
        Ok(!places.is_empty())
    }

    /// Moves sessions from those alive to those ended, of which only the latest are kept.
    pub(super) async fn retire(
        &self,
        user: &str,
        places: &[(Millis, SessionId)],
    ) -> Result<(), StoreError> {
        if places.is_empty() {
            return Ok(());
        }
        let mut call = self.scripts.retire.on(&self.keys.user(user));
        for (created_at, id) in places {
            call = call.arg(place(*created_at, id));
        }
        let forgotten: Vec<String> = read(self.run(call).await?)?;
        self.forget(&forgotten).await
    }

    async fn forget(&self, places: &[String]) -> Result<(), StoreError> {
        let mut commands = redis::pipe();
        for id in ids(places) {
            commands.cmd("DEL").arg(self.keys.session(&id));
            commands.cmd("DEL").arg(self.keys.activity(&id));
        }
        self.ask_all(&commands).await.map(drop)
    }

    pub(in super::super) async fn revoke_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
        ended: &mut Vec<SessionId>,
    ) -> Result<(), StoreError> {
        let (_, mut places) = self.places(user, false).await?;
        places.retain(|(_, id)| Some(*id) != except);
        let calls = places
            .iter()
            .map(|(_, id)| self.ending(id, Some(reason), idle, true));
        let mut first_error = Ok(());
        for ((_, id), reply) in places.iter().zip(self.run_all(calls.collect()).await?) {
            match ending(reply) {
                Ok((ENDED_NOW, ..)) => ended.push(*id),
                Ok(_) => {}
                // What did end is told in any case.
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error?;
        self.retire(user, &places).await
    }

    pub(in super::super) async fn set_identity(
        &self,
        user: &str,
        identity: Identity<'_>,
    ) -> Result<(), StoreError> {
        let (_, places) = self.places(user, false).await?;
        let call = |(_, id): &(Millis, SessionId)| {
            let call = self.scripts.identify.on(&[self.keys.session(id)]);
            let call = call
                .arg(identity.email)
                .arg(record::list(identity.roles))
                .arg(record::list(identity.scopes));
            match identity.name {
                Some(name) => call.arg(name),
                None => call,
            }
        };
        for reply in self.run_all(places.iter().map(call).collect()).await? {
            fault::settled(reply)?;
        }
        Ok(())
    }

    /// The time, and a user's sessions by their index: those alive, or the ended ones as well. An
    /// index of the wrong type is as good as none.
    pub(super) async fn places(
        &self,
        user: &str,
        ended_too: bool,
    ) -> Result<(Millis, Vec<(Millis, SessionId)>), StoreError> {
        let [alive, ended] = self.keys.user(user);
        let mut questions = redis::pipe();
        questions.cmd("TIME");
        questions.cmd("ZRANGE").arg(alive).arg(0).arg(-1);
        if ended_too {
            questions.cmd("ZRANGE").arg(ended).arg(0).arg(-1);
        }
        let mut replies = self.ask_all(&questions).await?.into_iter();
        let time = replies.next().as_ref().and_then(clock);
        let mut places = Vec::new();
        for reply in replies {
            if fault::is_wrong_type(&reply) {
                self.count_malformed("user_index", 1);
                continue;
            }
            let members: Vec<String> = read(reply)?;
            places.extend(members.iter().filter_map(|member| parse_place(member)));
        }
        Ok((time.ok_or(StoreError::Malformed)?, places))
    }
}

fn ids(places: &[String]) -> Vec<SessionId> {
    let parsed = places.iter().filter_map(|place| parse_place(place));
    parsed.map(|(_, id)| id).collect()
}
