//! The scripts: each is a file, with what it shares with others put in front.

use redis::{Arg, Cmd, Pipeline, Script, ToRedisArgs};

const CLOCK: &str = include_str!("clock.lua");
const LIMIT: &str = include_str!("limit.lua");
const SETTLE: &str = include_str!("settle.lua");
const REFUND_COUNTER: &str = include_str!("refund_counter.lua");
const IDENTITY: &str = include_str!("identity.lua");
const LEASE_UNITS: &str = include_str!("lease_units.lua");
const INDEX: &str = include_str!("index.lua");
const RECORD: &str = include_str!("record.lua");
const USE: &str = include_str!("use.lua");

/// All scripts, hashed once.
pub(in crate::store::redis) struct Scripts {
    pub decide: LoadedScript,
    pub look_up: LoadedScript,
    pub charge: LoadedScript,
    pub peek: LoadedScript,
    pub refund: LoadedScript,
    pub spend: LoadedScript,
    pub grant: LoadedScript,
    pub write_session: LoadedScript,
    pub end_session: LoadedScript,
    pub sign_in: LoadedScript,
    pub retire: LoadedScript,
    pub trim: LoadedScript,
    pub reenter: LoadedScript,
    pub set_identity: LoadedScript,
    pub record_use: LoadedScript,
    pub rotate_refresh: LoadedScript,
    pub amend: LoadedScript,
    pub touch: LoadedScript,
    pub profile: LoadedScript,
    pub put_profile: LoadedScript,
    pub report_live: LoadedScript,
    pub trim_live: LoadedScript,
    pub cut_off: LoadedScript,
    pub write_marker: LoadedScript,
    pub release: LoadedScript,
    pub presence: LoadedScript,
}

/// A script that the server knows by its hash.
pub(in crate::store::redis) struct LoadedScript {
    text: String,
    hash: String,
}

/// A script with its keys and arguments.
pub(in crate::store::redis) struct ScriptCall {
    pub command: Cmd,
}

impl Scripts {
    pub(in crate::store::redis) fn new() -> Scripts {
        Scripts {
            decide: LoadedScript::new(&[
                CLOCK,
                LIMIT,
                SETTLE,
                IDENTITY,
                include_str!("decide.lua"),
            ]),
            look_up: LoadedScript::new(&[CLOCK, IDENTITY, include_str!("look_up.lua")]),
            charge: LoadedScript::new(&[CLOCK, LIMIT, SETTLE, include_str!("charge.lua")]),
            peek: LoadedScript::new(&[CLOCK, LIMIT, include_str!("peek.lua")]),
            refund: LoadedScript::new(&[CLOCK, LIMIT, REFUND_COUNTER, include_str!("refund.lua")]),
            spend: LoadedScript::new(&[CLOCK, LIMIT, include_str!("spend.lua")]),
            grant: LoadedScript::new(&[
                CLOCK,
                LIMIT,
                SETTLE,
                LEASE_UNITS,
                include_str!("grant.lua"),
            ]),
            write_session: LoadedScript::new(&[
                CLOCK,
                RECORD,
                USE,
                include_str!("write_session.lua"),
            ]),
            end_session: LoadedScript::new(&[CLOCK, RECORD, USE, include_str!("end_session.lua")]),
            sign_in: LoadedScript::new(&[CLOCK, INDEX, include_str!("sign_in.lua")]),
            retire: LoadedScript::new(&[CLOCK, INDEX, include_str!("retire.lua")]),
            trim: LoadedScript::new(&[CLOCK, INDEX, include_str!("trim.lua")]),
            reenter: LoadedScript::new(&[CLOCK, INDEX, include_str!("reenter.lua")]),
            set_identity: LoadedScript::new(&[CLOCK, RECORD, include_str!("set_identity.lua")]),
            record_use: LoadedScript::new(&[CLOCK, RECORD, USE, include_str!("record_use.lua")]),
            rotate_refresh: LoadedScript::new(&[
                CLOCK,
                RECORD,
                USE,
                include_str!("rotate_refresh.lua"),
            ]),
            amend: LoadedScript::new(&[CLOCK, RECORD, USE, include_str!("amend.lua")]),
            touch: LoadedScript::new(&[CLOCK, RECORD, USE, include_str!("touch.lua")]),
            profile: LoadedScript::new(&[include_str!("profile.lua")]),
            put_profile: LoadedScript::new(&[include_str!("put_profile.lua")]),
            report_live: LoadedScript::new(&[CLOCK, include_str!("report_live.lua")]),
            trim_live: LoadedScript::new(&[CLOCK, include_str!("trim_live.lua")]),
            cut_off: LoadedScript::new(&[CLOCK, include_str!("cut_off.lua")]),
            write_marker: LoadedScript::new(&[include_str!("write_marker.lua")]),
            release: LoadedScript::new(&[include_str!("release.lua")]),
            presence: LoadedScript::new(&[CLOCK, include_str!("presence.lua")]),
        }
    }

    /// The commands that load all of them.
    pub(in crate::store::redis) fn load_commands(&self) -> Pipeline {
        let mut commands = redis::pipe();
        for script in self.all() {
            commands.cmd("SCRIPT").arg("LOAD").arg(&script.text);
        }
        commands
    }

    /// The same call with the text of its script, for a server that has forgotten it. Loading it first
    /// would be a trip of its own, after which the server may have forgotten it again.
    pub(in crate::store::redis) fn with_script_text(&self, call: &Cmd) -> Cmd {
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

    fn all(&self) -> [&LoadedScript; 26] {
        [
            &self.decide,
            &self.look_up,
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
            &self.set_identity,
            &self.record_use,
            &self.rotate_refresh,
            &self.amend,
            &self.touch,
            &self.profile,
            &self.put_profile,
            &self.report_live,
            &self.trim_live,
            &self.cut_off,
            &self.write_marker,
            &self.release,
            &self.presence,
        ]
    }
}

impl LoadedScript {
    fn new(parts: &[&str]) -> LoadedScript {
        let text = parts.concat();
        LoadedScript {
            hash: Script::new(&text).get_hash().to_owned(),
            text,
        }
    }

    /// Begins a call with its keys; arguments follow.
    pub(in crate::store::redis) fn call<K: AsRef<str>>(&self, keys: &[K]) -> ScriptCall {
        let mut command = Cmd::with_capacity(keys.len() + 16, 512);
        command.arg("EVALSHA").arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        ScriptCall { command }
    }
}

impl From<Cmd> for ScriptCall {
    fn from(command: Cmd) -> ScriptCall {
        ScriptCall { command }
    }
}

impl ScriptCall {
    pub(in crate::store::redis) fn arg(mut self, value: impl ToRedisArgs) -> ScriptCall {
        self.command.arg(value);
        self
    }
}
