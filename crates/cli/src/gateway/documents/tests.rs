use std::sync::Mutex;

use enishi_host::audit;
use tempfile::TempDir;

use super::super::daemon::{no, overlay, serve, shared, side};
use super::*;

/// What there is in the overlay into which documents are put.
#[derive(Default)]
struct There {
    values: BTreeMap<String, Vec<u8>>,
    /// Why nothing can be put.
    refusal: Option<String>,
}

/// A gateway between `alpha`, which takes `notice`, and `beta`, which gives it.
struct Gateway {
    dir: TempDir,
    given: Arc<Mutex<Vec<u8>>>,
    there: Arc<Mutex<There>>,
    shared: Arc<Shared>,
}

impl Gateway {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (alpha, beta) = (path("a"), path("b"));
        let given = Arc::new(Mutex::new(b"one".to_vec()));
        let there = Arc::new(Mutex::new(There::default()));
        let value = Arc::clone(&given);
        drop(serve(&beta, move |request| match request {
            Request::DhtGet { .. } => Answer::Value {
                value: value.lock().unwrap().clone(),
                seq: 1,
            },
            _ => no("beta is not asked that"),
        }));
        let values = Arc::clone(&there);
        drop(serve(&alpha, move |request| {
            let mut there = values.lock().unwrap();
            match request {
                Request::OverlayShow => overlay("alpha"),
                Request::DhtPut { key, value, .. } => match &there.refusal {
                    Some(refusal) => no(refusal),
                    None => {
                        there.values.insert(key, value);
                        Answer::Stored {
                            replicas: 1,
                            seq: 1,
                        }
                    }
                },
                Request::DhtRemove { key } => match there.values.remove(&key) {
                    Some(_) => Answer::Done,
                    None => no("There is no value under this key."),
                },
                _ => no("alpha is not asked that"),
            }
        }));
        let taken = BTreeSet::from([(0, "notice".to_owned())]);
        let state = State {
            sides: vec![side(&alpha, "alpha"), side(&beta, "beta")],
            documents: taken.clone(),
            wanted: taken,
            ..State::default()
        };
        Self {
            shared: shared(dir.path(), state),
            dir,
            given,
            there,
        }
    }

    fn done(&self) -> Done {
        Done::new(Copies::open(self.dir.path()).unwrap())
    }

    fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    fn there(&self) -> Option<Vec<u8>> {
        self.there.lock().unwrap().values.get("notice").cloned()
    }

    /// What the audit log says of documents.
    fn log(&self) -> Vec<String> {
        let mut told = Vec::new();
        let read = audit::read(self.dir.path(), |line, _| match &line.event {
            Event::Copied { content_hash, .. } => told.push(content_hash.clone()),
            Event::NotCopied { reason, .. } => told.push(reason.clone()),
            Event::Withdrawn { .. } => told.push("withdrawn".to_owned()),
            _ => {}
        });
        read.unwrap();
        told
    }
}

#[tokio::test]
async fn nothing_is_put_whose_hash_is_not_written_down_before() {
    let gateway = Gateway::open();
    let [one, two] = [b"one", b"two"].map(|content| content_hash(content));
    let mut done = gateway.done();
    gateway.there.lock().unwrap().refusal = Some("full".to_owned());
    done.work(&gateway.shared, &gateway.state()).await;
    assert_eq!(gateway.log(), [one.clone(), "full".to_owned()]);

    // What has failed is tried again after a while.
    done.work(&gateway.shared, &gateway.state()).await;
    assert_eq!(gateway.log().len(), 2);

    // Another content is another document.
    *gateway.given.lock().unwrap() = b"two".to_vec();
    gateway.there.lock().unwrap().refusal = None;
    done.work(&gateway.shared, &gateway.state()).await;
    assert_eq!(gateway.there().as_deref(), Some(&b"two"[..]));
    assert_eq!(gateway.log()[2..], [two]);

    // The first one again, which had failed before.
    *gateway.given.lock().unwrap() = b"one".to_vec();
    done.work(&gateway.shared, &gateway.state()).await;
    assert_eq!(gateway.there().as_deref(), Some(&b"one"[..]));
    assert_eq!(gateway.log()[3..], [one]);
}

#[tokio::test]
async fn copies_are_taken_out_at_the_end_and_by_a_later_run() {
    let gateway = Gateway::open();
    let mut done = gateway.done();
    done.work(&gateway.shared, &gateway.state()).await;
    assert!(gateway.there().is_some());

    // In good order.
    done.end(&gateway.shared).await;
    assert_eq!(gateway.there(), None);
    assert_eq!(gateway.log()[1..], ["withdrawn"]);

    // Killed; the consents name nothing any more when it starts again.
    let mut done = gateway.done();
    done.work(&gateway.shared, &gateway.state()).await;
    drop(done);
    let mut later = gateway.done();
    later.work(&gateway.shared, &State::default()).await;
    assert!(gateway.there().is_some(), "nobody was asked yet");
    let nothing = State {
        reason: Some("0 of 2 consents are here".to_owned()),
        ..State::default()
    };
    later.work(&gateway.shared, &nothing).await;
    assert_eq!(gateway.there(), None);
    assert_eq!(gateway.log().last().unwrap(), "withdrawn");
    assert!(gateway.done().copies.places().is_empty());
}
