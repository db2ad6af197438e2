//! Stages of a stream that is being closed, as pure transitions. A transition that does not apply
//! is `None`.

use super::CloseReason;

/// The pending action on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    /// The upstream was given up; the connection's reader is to fail once, so that the client still
    /// gets a response.
    Failing,
    /// Like `Failing`, and a check has found that the reader has not failed.
    Overdue,
    /// The reader of an upgraded connection or a waiting gRPC call ends the stream gracefully.
    Closing(CloseReason),
    /// The future that serves the stream is to be dropped.
    Dropping(Option<CloseReason>),
}

/// A stage with the two facts that decide how a stream is closed. Both are one atomic word, so that
/// a close and the end of a wait that happen together see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub stage: Stage,
    /// The connection speaks WebSocket.
    pub upgraded: bool,
    /// A gRPC call waits for the close and reports it.
    pub awaited: bool,
}

impl State {
    /// The bit of [`State::upgraded`].
    pub(super) const UPGRADED: u8 = 0b0_1000;
    /// The bit of [`State::awaited`].
    pub(super) const AWAITED: u8 = 0b1_0000;
    const STAGE: u8 = 0b0_0111;

    pub(super) fn from_word(word: u8) -> State {
        let stage = match word & State::STAGE {
            0 => Stage::Serving,
            1 => Stage::Failing,
            2 => Stage::Overdue,
            3 => Stage::Closing(CloseReason::Ended),
            4 => Stage::Closing(CloseReason::Drain),
            5 => Stage::Dropping(None),
            6 => Stage::Dropping(Some(CloseReason::Ended)),
            _ => Stage::Dropping(Some(CloseReason::Drain)),
        };
        State {
            stage,
            upgraded: word & State::UPGRADED != 0,
            awaited: word & State::AWAITED != 0,
        }
    }

    pub(super) fn word(self) -> u8 {
        let stage = match self.stage {
            Stage::Serving => 0,
            Stage::Failing => 1,
            Stage::Overdue => 2,
            Stage::Closing(CloseReason::Ended) => 3,
            Stage::Closing(CloseReason::Drain) => 4,
            Stage::Dropping(None) => 5,
            Stage::Dropping(Some(CloseReason::Ended)) => 6,
            Stage::Dropping(Some(CloseReason::Drain)) => 7,
        };
        let upgraded = if self.upgraded { State::UPGRADED } else { 0 };
        let awaited = if self.awaited { State::AWAITED } else { 0 };
        stage | upgraded | awaited
    }

    /// Why the stream was closed, if it was.
    pub(super) fn close_reason(self) -> Option<CloseReason> {
        match self.stage {
            Stage::Closing(why) => Some(why),
            Stage::Dropping(why) => why,
            Stage::Serving | Stage::Failing | Stage::Overdue => None,
        }
    }

    /// Closes the stream; the first reason stays.
    pub(super) fn close(self, why: CloseReason) -> Option<State> {
        match self.stage {
            Stage::Closing(_) | Stage::Dropping(Some(_)) => None,
            Stage::Dropping(None) => Some(self.enter(Stage::Dropping(Some(why)))),
            Stage::Serving | Stage::Failing | Stage::Overdue => {
                let softly = self.upgraded || self.awaited;
                Some(self.enter(match softly {
                    true => Stage::Closing(why),
                    false => Stage::Dropping(Some(why)),
                }))
            }
        }
    }

    /// Gives up the upstream. A stream that is being closed already is unaffected.
    pub(super) fn give_up(self) -> Option<State> {
        match self.stage {
            Stage::Serving => Some(self.enter(Stage::Failing)),
            Stage::Closing(why) => Some(self.enter(Stage::Dropping(Some(why)))),
            Stage::Failing | Stage::Overdue | Stage::Dropping(_) => None,
        }
    }

    /// Makes the reader fail: once each time that the upstream is given up.
    pub(super) fn fail_reader(self) -> Option<State> {
        let failing = matches!(self.stage, Stage::Failing | Stage::Overdue);
        failing.then(|| self.enter(Stage::Serving))
    }

    /// A periodic check: a reader has the time between two checks to fail.
    pub(super) fn check_reader(self) -> Option<State> {
        match self.stage {
            Stage::Failing => Some(self.enter(Stage::Overdue)),
            Stage::Overdue => Some(self.enter(Stage::Dropping(None))),
            Stage::Serving | Stage::Closing(_) | Stage::Dropping(_) => None,
        }
    }

    /// No task waits for the close any more; from now on it is a hard one.
    pub(super) fn abandon_wait(self) -> Option<State> {
        match self.stage {
            Stage::Closing(why) => Some(self.enter(Stage::Dropping(Some(why)))),
            Stage::Serving | Stage::Failing | Stage::Overdue | Stage::Dropping(_) => None,
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
            upgraded: false,
            awaited: false,
        }
    }

    fn stage(state: Option<State>) -> Option<Stage> {
        state.map(|state| state.stage)
    }

    #[test]
    fn every_word_is_one_state() {
        for word in 0..32 {
            assert_eq!(State::from_word(word).word(), word);
        }
        assert_eq!(State::from_word(0), state(Stage::Serving));
    }

    #[test]
    fn close_is_soft_only_where_something_ends_the_stream() {
        for from in [Stage::Serving, Stage::Failing, Stage::Overdue] {
            let plain = state(from);
            let upgraded = State {
                upgraded: true,
                ..plain
            };
            let awaited = State {
                awaited: true,
                ..plain
            };
            assert_eq!(
                stage(plain.close(ENDED)),
                Some(Stage::Dropping(Some(ENDED)))
            );
            assert_eq!(stage(upgraded.close(DRAIN)), Some(Stage::Closing(DRAIN)));
            assert_eq!(stage(awaited.close(ENDED)), Some(Stage::Closing(ENDED)));
        }
    }

    #[test]
    fn first_reason_stays() {
        for from in [Stage::Closing(DRAIN), Stage::Dropping(Some(DRAIN))] {
            assert_eq!(state(from).close(ENDED), None);
            assert_eq!(state(from).close_reason(), Some(DRAIN));
        }
        let dropped = state(Stage::Dropping(None));
        assert_eq!(dropped.close_reason(), None);
        assert_eq!(
            stage(dropped.close(ENDED)),
            Some(Stage::Dropping(Some(ENDED)))
        );
    }

    #[test]
    fn given_up_stream_fails_once_or_is_dropped() {
        let failing = state(Stage::Serving).give_up();
        assert_eq!(stage(failing), Some(Stage::Failing));
        let overdue = failing.and_then(State::check_reader);
        assert_eq!(stage(overdue), Some(Stage::Overdue));
        for given_up in [failing, overdue] {
            assert_eq!(given_up.and_then(State::give_up), None);
            let served = given_up.and_then(State::fail_reader);
            assert_eq!(stage(served), Some(Stage::Serving));
            assert_eq!(served.and_then(State::fail_reader), None);
            assert_eq!(served.and_then(State::check_reader), None);
        }
        let dropped = overdue.and_then(State::check_reader);
        assert_eq!(stage(dropped), Some(Stage::Dropping(None)));
    }

    #[test]
    fn closing_stream_is_dropped_when_nothing_can_end_it() {
        let closing = state(Stage::Closing(DRAIN));
        let dropped = Some(Stage::Dropping(Some(DRAIN)));
        assert_eq!(stage(closing.abandon_wait()), dropped);
        assert_eq!(stage(closing.give_up()), dropped);
        assert_eq!(state(Stage::Serving).abandon_wait(), None);
    }
}
