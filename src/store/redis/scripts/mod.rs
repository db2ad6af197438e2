//! The scripts: each is a file, with what it shares with others put in front.

use redis::{Arg, Cmd, Pipeline, Script, ToRedisArgs};

const CLOCK: &str = include_str!("clock.lua");
const LIMIT: &str = include_str!("limit.lua");
const SETTLE: &str = include_str!("settle.lua");
const GIVE_BACK: &str = include_str!("give_back.lua");
const IDENTITY: &str = include_str!("identity.lua");
const PERMITS: &str = include_str!("permits.lua");
const INDEX: &str = include_str!("index.lua");
const RECORD: &str = include_str!("record.lua");
const USE: &str = include_str!("use.lua");

/// All scripts, hashed once.
pub(super) struct Scripts {
    pub decide: Loaded,
    pub introspect: Loaded,
    pub charge: Loaded,
    pub peek: Loaded,
    pub refund: Loaded,
    pub spend: Loaded,
    pub grant: Loaded,
    pub write_session: Loaded,
    pub end_session: Loaded,
    pub sign_in: Loaded,
    pub retire: Loaded,
    pub trim: Loaded,
    pub reenter: Loaded,
    pub identify: Loaded,
    pub record_use: Loaded,
    pub rotate_refresh: Loaded,
    pub amend: Loaded,
    pub touch: Loaded,
    pub profile: Loaded,
    pub put_profile: Loaded,
    pub report_live: Loaded,
    pub trim_live: Loaded,
    pub cut_off: Loaded,
    pub mark: Loaded,
    pub release: Loaded,
    pub presence: Loaded,
}

/// A script that the server knows by its hash.
pub(super) struct Loaded {
    text: String,
    hash: String,
}

/// A script with its keys and arguments.
pub(super) struct Call {
    pub command: Cmd,
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        Scripts {
            decide: Loaded::new(&[CLOCK, LIMIT, SETTLE, IDENTITY, include_str!("decide.lua")]),
            introspect: Loaded::new(&[CLOCK, IDENTITY, include_str!("introspect.lua")]),
            charge: Loaded::new(&[CLOCK, LIMIT, SETTLE, include_str!("charge.lua")]),
            peek: Loaded::new(&[CLOCK, LIMIT, include_str!("peek.lua")]),
            refund: Loaded::new(&[CLOCK, LIMIT, GIVE_BACK, include_str!("refund.lua")]),
            spend: Loaded::new(&[CLOCK, LIMIT, include_str!("spend.lua")]),
            grant: Loaded::new(&[CLOCK, LIMIT, SETTLE, PERMITS, include_str!("grant.lua")]),
            write_session: Loaded::new(&[CLOCK, RECORD, USE, include_str!("write_session.lua")]),
            end_session: Loaded::new(&[CLOCK, RECORD, USE, include_str!("end_session.lua")]),
            sign_in: Loaded::new(&[CLOCK, INDEX, include_str!("sign_in.lua")]),
            retire: Loaded::new(&[CLOCK, INDEX, include_str!("retire.lua")]),
            trim: Loaded::new(&[CLOCK, INDEX, include_str!("trim.lua")]),
            reenter: Loaded::new(&[CLOCK, INDEX, include_str!("reenter.lua")]),
            identify: Loaded::new(&[CLOCK, RECORD, include_str!("identify.lua")]),
            record_use: Loaded::new(&[CLOCK, RECORD, USE, include_str!("record_use.lua")]),
            rotate_refresh: Loaded::new(&[CLOCK, RECORD, USE, include_str!("rotate_refresh.lua")]),
            amend: Loaded::new(&[CLOCK, RECORD, USE, include_str!("amend.lua")]),
            touch: Loaded::new(&[CLOCK, RECORD, USE, include_str!("touch.lua")]),
            profile: Loaded::new(&[include_str!("profile.lua")]),
            put_profile: Loaded::new(&[include_str!("put_profile.lua")]),
            report_live: Loaded::new(&[CLOCK, include_str!("report_live.lua")]),
            trim_live: Loaded::new(&[CLOCK, include_str!("trim_live.lua")]),
            cut_off: Loaded::new(&[CLOCK, include_str!("cut_off.lua")]),
            mark: Loaded::new(&[include_str!("mark.lua")]),
            release: Loaded::new(&[include_str!("release.lua")]),
            presence: Loaded::new(&[CLOCK, include_str!("presence.lua")]),
        }
    }

    /// The commands that load all of them.
    pub(super) fn loading(&self) -> Pipeline {
        let mut commands = redis::pipe();
        for script in self.all() {
            commands.cmd("SCRIPT").arg("LOAD").arg(&script.text);
        }
        commands
    }

    /// The same call with the text of its script, for a server that has forgotten it. Loading it first
    /// would be a trip of its own, after which the server may have forgotten it again.
    pub(super) fn in_full(&self, call: &Cmd) -> Cmd {
        let mut words = call.args_iter().filter_map(|word| match word {
            Arg::Simple(word) => Some(word),
            _ => None,
        });
        let (_, hash) = (words.next(), words.next().unwrap_or_default());
        let script = self.all().into_iter().find(|it| it.hash.as_bytes() == hash);
        let Some(script) = script else {
            return call.clone();
        };
        let mut in_full = Cmd::with_capacity(call.args_iter().count(), script.text.len() + 512);
        in_full.arg("EVAL").arg(&script.text);
        for word in words {
            in_full.arg(word);
        }
        in_full
    }

    fn all(&self) -> [&Loaded; 26] {
        [
            &self.decide,
            &self.introspect,
            &self.charge,
            &self.peek,
            &self.refund,
            &self.spend,
            &self.grant,
            &self.write_session,
            &self.end_session,
            &self.sign_in,
            &self.retire,
            &self.trim,
            &self.reenter,
            &self.identify,
            &self.record_use,
            &self.rotate_refresh,
            &self.amend,
            &self.touch,
            &self.profile,
            &self.put_profile,
            &self.report_live,
            &self.trim_live,
            &self.cut_off,
            &self.mark,
            &self.release,
            &self.presence,
        ]
    }
}

impl Loaded {
    fn new(parts: &[&str]) -> Loaded {
        let text = parts.concat();
        Loaded {
            hash: Script::new(&text).get_hash().to_owned(),
            text,
        }
    }

    /// Begins a call with its keys; arguments follow.
    pub(super) fn on<K: AsRef<str>>(&self, keys: &[K]) -> Call {
        let mut command = Cmd::with_capacity(keys.len() + 16, 512);
        command.arg("EVALSHA").arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        Call { command }
    }
}

impl From<Cmd> for Call {
    fn from(command: Cmd) -> Call {
        Call { command }
    }
}

impl Call {
    pub(super) fn arg(mut self, value: impl ToRedisArgs) -> Call {
        self.command.arg(value);
        self
    }
}
