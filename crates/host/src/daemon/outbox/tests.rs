use enishi_overlay::{Keypair, OverlayId};
use enishi_services::dht::Caller;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::config::Config;
use crate::packets::{Discovery, Networks};
use crate::session::SessionConfig;

/// The outbox under test, and what it needs to live.
struct Desk {
    outbox: Outbox,
    shared: Arc<Shared>,
    _dir: TempDir,
}

impl Desk {
    async fn new() -> Self {
        let keypair = Keypair::from_seed(&[1; 32]);
        let overlay = OverlayId::from_name("outbox");
        let (sessions, _) = Sessions::bind(SessionConfig {
            keypair: keypair.clone(),
            overlay,
            listen: vec![([127, 0, 0, 1], 0).into()],
            on_datagram: Arc::new(|_, _| {}),
            carry: Arc::new(crate::session::NobodyCarries),
        })
        .await
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (store, ..) = Store::open(dir.path()).unwrap();
        let networks = Arc::new(Networks::new(
            mpsc::channel(1).0,
            None,
            Discovery::default(),
            [3; 32],
        ));
        let data = dir.path().to_owned();
        let shared = Arc::new(Shared::new(
            keypair,
            overlay,
            Config::default(),
            data,
            networks,
        ));
        Self {
            outbox: Outbox::new(store, sessions, Arc::clone(&shared)),
            shared,
            _dir: dir,
        }
    }

    /// A batch with a value, or without one, and an event with a number.
    fn batch(&mut self, value: bool, number: u64) {
        let now = Time::from_micros(0);
        self.outbox.begin(now);
        if value {
            self.outbox.persist(slot(number), Some(vec![1]));
        }
        self.outbox.tell(event(number));
        self.outbox.flush(now);
    }

    /// What may be told: numbers, and whether something was stored.
    fn told(&mut self) -> Vec<(u64, bool)> {
        let number = |event| match event {
            Event::Dht(dht::Event::PutDone {
                caller: Caller::Host(number),
                answer,
            }) => (number, matches!(answer, PutAnswer::Stored { .. })),
            other => panic!("{other:?}"),
        };
        self.outbox.ready().into_iter().map(number).collect()
    }
}

fn slot(number: u64) -> Slot {
    let key = number.to_le_bytes().to_vec();
    Slot::Value { service: 1, key }
}

fn event(number: u64) -> Event {
    Event::Dht(dht::Event::PutDone {
        caller: Caller::Host(number),
        answer: PutAnswer::Stored {
            replicas: 1,
            seq: 1,
        },
    })
}

#[tokio::test]
async fn no_event_overtakes_one_that_waits() {
    let mut desk = Desk::new().await;
    let now = Time::from_micros(0);
    desk.batch(false, 0);
    assert_eq!(desk.told(), [(0, true)]);
    desk.batch(true, 1);
    desk.batch(false, 2);
    desk.batch(true, 3);
    desk.batch(false, 4);
    assert_eq!(desk.told(), []);
    desk.outbox.committed(now, Ok(()));
    assert_eq!(desk.told(), [(1, true), (2, true)]);
    desk.outbox.committed(now, Ok(()));
    assert_eq!(desk.told(), [(3, true), (4, true)]);
    desk.batch(false, 5);
    assert_eq!(desk.told(), [(5, true)]);
}

#[tokio::test]
async fn no_message_overtakes_an_event_of_its_batch() {
    let mut desk = Desk::new().await;
    let now = Time::from_micros(0);
    let dial = |desk: &mut Desk, number| {
        desk.outbox.begin(now);
        desk.outbox
            .dial(Contact::new(Keypair::from_seed(&[9; 32]).id(), []));
        desk.outbox.tell(event(number));
        desk.outbox.flush(now);
        (desk.told(), desk.outbox.leaving.len())
    };
    assert_eq!(dial(&mut desk, 0), (vec![(0, true)], 1));
    desk.outbox.leave();
    // Nothing of its own has to be on disk, but an event before its event waits.
    desk.batch(true, 1);
    assert_eq!(dial(&mut desk, 2), (vec![], 0));
    desk.batch(true, 3);
    assert_eq!(dial(&mut desk, 4), (vec![], 0));
    desk.outbox.committed(now, Ok(()));
    assert_eq!(desk.told(), [(1, true), (2, true)]);
    assert_eq!(desk.outbox.leaving.len(), 1);
    // A store that fails holds up neither.
    desk.outbox
        .committed(now, Err((Batch::new(), "full".to_owned())));
    assert_eq!(desk.told(), [(3, false), (4, true)]);
    assert_eq!(desk.outbox.leaving.len(), 2);
}

#[tokio::test]
async fn a_failed_commit_keeps_the_order_and_what_it_could_not_keep_is_not_stored() {
    let mut desk = Desk::new().await;
    let now = Time::from_micros(0);
    for number in 0..4 {
        desk.batch(number % 2 == 0, number);
    }
    let batch = Batch::from([(slot(0), Some(vec![1]))]);
    desk.outbox.committed(now, Err((batch, "full".to_owned())));
    assert_eq!(desk.told(), [(0, false), (1, true), (2, false), (3, true)]);
    assert!(!desk.outbox.works() && desk.outbox.next_timeout() == Some(now + RETRY));
    assert_eq!(desk.outbox.values.len(), 2);
    desk.batch(true, 4);
    assert_eq!(desk.told(), [(4, true)]);
    desk.outbox.flush(now + RETRY);
    desk.outbox.committed(now + RETRY, Ok(()));
    assert!(desk.outbox.works() && desk.shared.noted().is_empty());
}

#[tokio::test]
async fn a_value_without_room_counts_as_a_failure() {
    let mut desk = Desk::new().await;
    desk.batch(true, 0);
    desk.outbox.begin(Time::from_micros(0));
    for number in 1..=VALUES_MAX as u64 {
        desk.outbox.persist(slot(number), None);
    }
    assert!(desk.outbox.works());
    desk.outbox.tell(event(1));
    desk.outbox.persist(slot(u64::MAX), None);
    assert!(!desk.outbox.works());
    desk.outbox.tell(event(2));
    assert_eq!(desk.told(), [(0, false), (1, false), (2, false)]);
    assert!(desk.shared.noted()[0].contains("wait for the disk"));
}

#[tokio::test]
async fn events_and_octets_that_wait_are_bounded() {
    let mut desk = Desk::new().await;
    for number in 0..TELLS_MAX as u64 {
        desk.batch(number == 0, number);
    }
    assert_eq!(desk.told(), []);
    desk.batch(false, TELLS_MAX as u64);
    let told = desk.told();
    assert_eq!((told.len(), told[0]), (TELLS_MAX + 1, (0, false)));
    assert!(told.is_sorted_by_key(|(number, _)| *number));

    let to = Contact::new(Keypair::from_seed(&[2; 32]).id(), []);
    let frame = Bytes::from(vec![0; HELD_BYTES_MAX / 2]);
    for _ in 0..3 {
        let send = Leaving::Send(to.clone(), frame.clone());
        desk.outbox.hold(send, false);
    }
    assert_eq!(desk.outbox.waiting.held.len(), 2);
}

#[tokio::test]
async fn a_store_that_died_holds_nobody_up() {
    let mut desk = Desk::new().await;
    desk.batch(true, 0);
    desk.outbox.died();
    assert_eq!(desk.told(), [(0, false)]);
    desk.batch(true, 1);
    assert_eq!(desk.told(), [(1, true)]);
    assert!(!desk.outbox.works() && desk.outbox.is_settled());
    assert_eq!(desk.outbox.next_timeout(), None);
    assert!(desk.shared.noted()[0].contains("start it again"));
}
