use super::*;
use crate::exchange::{Answer, Failure};

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
