//! Stages of a stream that is being closed, as pure transitions. A transition that does not apply
//! is `None`.

use super::CloseReason;

/// The pending action on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    /// The upstream was given up; the client still gets a response.
    Failing,
    /// A waiting gRPC call ends the stream gracefully.
    Closing(CloseReason),
    /// The future that serves the stream is to be dropped, or to end by itself if it polls.
    Dropping(CloseReason),
}

/// A stage with the fact that decides how a stream is closed. Both are one atomic word, so that a close
/// and the end of a wait that happen together see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub stage: Stage,
    /// A gRPC call waits for the close and reports it.
    pub awaited: bool,
}

impl State {
    /// The bit of [`State::awaited`].
    pub(super) const AWAITED: u8 = 0b1000;
    const STAGE: u8 = 0b0111;

    pub(super) fn from_word(word: u8) -> State {
        let stage = match word & State::STAGE {
            0 => Stage::Serving,
            1 => Stage::Failing,
            2 => Stage::Closing(CloseReason::Ended),
            3 => Stage::Closing(CloseReason::Drain),
            4 => Stage::Dropping(CloseReason::Ended),
            _ => Stage::Dropping(CloseReason::Drain),
        };
        State {
            stage,
            awaited: word & State::AWAITED != 0,
        }
    }

    pub(super) fn word(self) -> u8 {
        let stage = match self.stage {
            Stage::Serving => 0,
            Stage::Failing => 1,
            Stage::Closing(CloseReason::Ended) => 2,
            Stage::Closing(CloseReason::Drain) => 3,
            Stage::Dropping(CloseReason::Ended) => 4,
            Stage::Dropping(CloseReason::Drain) => 5,
        };
        stage | if self.awaited { State::AWAITED } else { 0 }
    }

    /// Why the stream was closed, if it was.
    pub(super) fn close_reason(self) -> Option<CloseReason> {
        match self.stage {
            Stage::Closing(why) | Stage::Dropping(why) => Some(why),
            Stage::Serving | Stage::Failing => None,
        }
    }

    /// Closes the stream; the first reason stays.
    pub(super) fn close(self, why: CloseReason) -> Option<State> {
        match self.stage {
            Stage::Closing(_) | Stage::Dropping(_) => None,
            Stage::Serving | Stage::Failing => Some(self.enter(match self.awaited {
                true => Stage::Closing(why),
                false => Stage::Dropping(why),
            })),
        }
    }

    /// Gives up the upstream. A stream that is dropped already is unaffected.
    pub(super) fn give_up(self) -> Option<State> {
        match self.stage {
            Stage::Serving => Some(self.enter(Stage::Failing)),
            Stage::Closing(why) => Some(self.enter(Stage::Dropping(why))),
            Stage::Failing | Stage::Dropping(_) => None,
        }
    }

    /// No task waits for the close any more; from now on it is a hard one.
    pub(super) fn abandon_wait(self) -> Option<State> {
        match self.stage {
            Stage::Closing(why) => Some(self.enter(Stage::Dropping(why))),
            Stage::Serving | Stage::Failing | Stage::Dropping(_) => None,
        }
    }

    fn enter(self, stage: Stage) -> State {
        State { stage, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: CloseReason = CloseReason::Ended;
    const DRAIN: CloseReason = CloseReason::Drain;

    fn state(stage: Stage) -> State {
        State {
            stage,
            awaited: false,
        }
    }

    fn stage(state: Option<State>) -> Option<Stage> {
        state.map(|state| state.stage)
    }

    #[test]
    fn every_state_is_one_word() {
        for word in 0..6 {
            for awaited in [0, State::AWAITED] {
                assert_eq!(State::from_word(word | awaited).word(), word | awaited);
            }
        }
        assert_eq!(State::from_word(0), state(Stage::Serving));
    }

    #[test]
    fn close_is_soft_only_where_something_ends_the_stream() {
        for from in [Stage::Serving, Stage::Failing] {
            let plain = state(from);
            let awaited = State {
                awaited: true,
                ..plain
            };
            assert_eq!(stage(plain.close(ENDED)), Some(Stage::Dropping(ENDED)));
            assert_eq!(stage(awaited.close(ENDED)), Some(Stage::Closing(ENDED)));
        }
    }

    #[test]
    fn first_reason_stays() {
        for from in [Stage::Closing(DRAIN), Stage::Dropping(DRAIN)] {
            assert_eq!(state(from).close(ENDED), None);
            assert_eq!(state(from).close_reason(), Some(DRAIN));
        }
    }

    #[test]
    fn stream_is_given_up_once() {
        let failing = state(Stage::Serving).give_up();
        assert_eq!(stage(failing), Some(Stage::Failing));
        assert_eq!(failing.and_then(State::give_up), None);
        assert_eq!(state(Stage::Dropping(DRAIN)).give_up(), None);
    }

    #[test]
    fn closing_stream_is_dropped_when_nothing_can_end_it() {
        let closing = state(Stage::Closing(DRAIN));
        let dropped = Some(Stage::Dropping(DRAIN));
        assert_eq!(stage(closing.abandon_wait()), dropped);
        assert_eq!(stage(closing.give_up()), dropped);
        assert_eq!(state(Stage::Serving).abandon_wait(), None);
    }
}
