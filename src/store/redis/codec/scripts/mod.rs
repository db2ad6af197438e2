//! Lua scripts. Each is a file; parts that it shares with others are prepended.
//!
//! The first comment of each file documents KEYS, ARGV, reply, and why it is a script.

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

/// All scripts, with their hashes.
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
    pub put_provider_tokens: LoadedScript,
    pub index_sign_in: LoadedScript,
    pub number_logout: LoadedScript,
    pub report_live: LoadedScript,
    pub trim_live: LoadedScript,
    pub cut_off: LoadedScript,
    pub write_marker: LoadedScript,
    pub release: LoadedScript,
    pub presence: LoadedScript,
}

/// A script, which the server caches by its hash.
pub(in crate::store::redis) struct LoadedScript {
    text: String,
    hash: String,
}

/// A call of a script with its keys and arguments.
pub(in crate::store::redis) struct ScriptCall {
    pub command: Cmd,
}

impl Scripts {
    pub(in crate::store::redis) fn new() -> Scripts {
        let of_session = |script| LoadedScript::new(&[CLOCK, RECORD, USE, script]);
        let of_index = |script| LoadedScript::new(&[CLOCK, INDEX, script]);
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
            write_session: of_session(include_str!("write_session.lua")),
            end_session: of_session(include_str!("end_session.lua")),
            sign_in: of_index(include_str!("sign_in.lua")),
            retire: of_index(include_str!("retire.lua")),
            trim: of_index(include_str!("trim.lua")),
            reenter: of_index(include_str!("reenter.lua")),
            set_identity: LoadedScript::new(&[CLOCK, RECORD, include_str!("set_identity.lua")]),
            record_use: of_session(include_str!("record_use.lua")),
            rotate_refresh: of_session(include_str!("rotate_refresh.lua")),
            amend: of_session(include_str!("amend.lua")),
            touch: of_session(include_str!("touch.lua")),
            profile: LoadedScript::new(&[include_str!("profile.lua")]),
            put_profile: LoadedScript::new(&[include_str!("put_profile.lua")]),
            put_provider_tokens: LoadedScript::new(&[
                CLOCK,
                RECORD,
                include_str!("put_provider_tokens.lua"),
            ]),
            index_sign_in: LoadedScript::new(&[CLOCK, include_str!("index_sign_in.lua")]),
            number_logout: LoadedScript::new(&[CLOCK, include_str!("number_logout.lua")]),
            report_live: LoadedScript::new(&[CLOCK, include_str!("report_live.lua")]),
            trim_live: LoadedScript::new(&[CLOCK, include_str!("trim_live.lua")]),
            cut_off: LoadedScript::new(&[CLOCK, include_str!("cut_off.lua")]),
            write_marker: LoadedScript::new(&[include_str!("write_marker.lua")]),
            release: LoadedScript::new(&[include_str!("release.lua")]),
            presence: LoadedScript::new(&[CLOCK, include_str!("presence.lua")]),
        }
    }

    /// The commands that load all scripts.
    pub(in crate::store::redis) fn load_commands(&self) -> Pipeline {
        let mut commands = redis::pipe();
        for script in self.all() {
            commands.cmd("SCRIPT").arg("LOAD").arg(&script.text);
        }
        commands
    }

    /// The same call as `EVAL` with the script's text, for a server that does not have the script.
    ///
    /// Loading it first would take another round trip, after which it may be flushed again.
    pub(in crate::store::redis) fn with_script_text(&self, call: &Cmd) -> Cmd {
        let mut arguments = call.args_iter().filter_map(|argument| match argument {
            Arg::Simple(argument) => Some(argument),
            _ => None,
        });
        let (_, hash) = (arguments.next(), arguments.next().unwrap_or_default());
        let mut scripts = self.all().into_iter();
        let Some(script) = scripts.find(|script| script.hash.as_bytes() == hash) else {
            return call.clone();
        };
        let mut eval = Cmd::with_capacity(call.args_iter().count(), script.text.len() + 512);
        eval.arg("EVAL").arg(&script.text);
        for argument in arguments {
            eval.arg(argument);
        }
        eval
    }

    fn all(&self) -> [&LoadedScript; 29] {
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
            &self.put_provider_tokens,
            &self.index_sign_in,
            &self.number_logout,
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

    /// Creates a call with its keys; arguments are appended by [`ScriptCall::arg`].
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
