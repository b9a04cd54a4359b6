use std::collections::VecDeque;

use super::*;
use crate::exchange::{Answer, Failure, Far, FarInput, FarOutput, Limits, STREAM_BYTES_MAX};
use crate::frame::{Frame, Kind, Token};

/// Answers every trial the same, at once or when its time is over.
fn outcome(answered: &Answered, auth: ProxyAuth) -> (Outcome, Time, usize) {
    let (mut now, mut trials) = (Time::ZERO, 0);
    let mut probe = Probe::new([1; 32]);
    let mut under_way: Vec<(Time, RequestId)> = Vec::new();
    let mut input = ProbeInput::Timeout;
    loop {
        for output in probe.handle(now, input) {
            match output {
                ProbeOutput::Ask(id, _, within) => {
                    let silent = *answered == Err(Failure::Silence);
                    let after = if silent { within } else { Duration::ZERO };
                    under_way.push((now + after, id));
                    trials += 1;
                }
                ProbeOutput::Stop(_) => {}
                ProbeOutput::Done(outcome) => return (*outcome, now, trials),
            }
        }
        assert!(under_way.len() <= TRIALS_AT_ONCE);
        let first = under_way.iter().copied().min().unwrap();
        let timeout = probe.next_timeout().unwrap();
        now = now.max(timeout.min(first.0));
        input = if first.0 <= now {
            under_way.retain(|one| *one != first);
            ProbeInput::Answered(first.1, answered.clone(), auth)
        } else {
            ProbeInput::Timeout
        };
    }
}

#[test]
fn where_nothing_passes_the_search_ends_in_time() {
    let page = Answer {
        status: 200,
        body: "<html>Blocked</html>".into(),
    };
    for answered in [Err(Failure::Silence), Err(Failure::Connect), Ok(page)] {
        let (outcome, now, trials) = outcome(&answered, ProxyAuth::None);
        assert_eq!((outcome.way, trials), (None, 7), "{answered:?}");
        assert_eq!(outcome.tried.len(), 7);
        assert!(now < Duration::from_secs(10), "{now:?}");
    }
}

#[test]
fn who_must_say_who_it_is_and_cannot_is_told_at_once() {
    let asked = Ok(Answer {
        status: 407,
        body: bytes::Bytes::new(),
    });
    let (outcome, now, trials) = outcome(&asked, ProxyAuth::Missing);
    assert_eq!(
        (outcome.way, outcome.auth, now),
        (None, ProxyAuth::Missing, Time::ZERO)
    );
    assert!(trials <= 2);
}

/// Looks for a way to a bridge that answers all but trials of streams, and those so.
fn where_streams(answered: &Answered) -> Way {
    let mut far = Far::new(Limits::default(), [3; 32]);
    let (mut now, mut asks) = (Time::ZERO, 0);
    let mut probe = Probe::new([1; 32]);
    let mut inputs = VecDeque::from([ProbeInput::Timeout]);
    loop {
        let input = inputs.pop_front().unwrap_or_else(|| {
            now = now.max(probe.next_timeout().unwrap());
            ProbeInput::Timeout
        });
        for output in probe.handle(now, input) {
            let (id, ask) = match output {
                ProbeOutput::Ask(id, ask, _) => (id, ask),
                ProbeOutput::Stop(_) => continue,
                ProbeOutput::Done(outcome) => return outcome.way.unwrap(),
            };
            let octets = Ask::undress(&ask.path, &ask.body).unwrap();
            let kind = Frame::decode(octets.as_ref().unwrap()).unwrap().kind;
            let auth = ProxyAuth::None;
            if matches!(kind, Kind::Try | Kind::Await) {
                if let Ok(answer) = answered
                    && answer.status == 200
                    && ask.streamed
                {
                    inputs.push_back(ProbeInput::Part(id, answer.body.clone()));
                }
                inputs.push_back(ProbeInput::Answered(id, answered.clone(), auth));
                continue;
            }
            asks += 1;
            let from = [192, 0, 2, 1].into();
            let asked = FarInput::Asked {
                ask: asks,
                from,
                octets,
            };
            for output in far.handle(now, asked) {
                if let FarOutput::Answer { body, .. } = output {
                    let answer = Ok(Answer { status: 200, body });
                    inputs.push_back(ProbeInput::Answered(id, answer, auth));
                }
            }
        }
    }
}

#[test]
fn a_bridge_without_room_says_nothing_of_streams() {
    let busy = Frame::new(Kind::Busy, Token::default()).encode(0);
    let answer = |status, body: &bytes::Bytes| {
        let body = body.clone();
        Ok(Answer { status, body })
    };
    for passing in [answer(200, &busy), answer(503, &bytes::Bytes::new())] {
        let way = where_streams(&passing);
        let most = (STREAM_BYTES_MAX, STREAM_BYTES_MAX);
        assert_eq!((way.stream_bytes, way.pour_bytes), most, "{passing:?}");
    }
    for failed in [
        answer(403, &bytes::Bytes::new()),
        Err(Failure::Broken),
        Err(Failure::Silence),
    ] {
        let way = where_streams(&failed);
        assert_eq!((way.stream_bytes, way.pour_bytes), (0, 0), "{failed:?}");
    }
}
