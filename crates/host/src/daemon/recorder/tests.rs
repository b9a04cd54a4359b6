use std::time::{Duration, Instant};

use enishi_overlay::{Keypair, OverlayId};
use enishi_services::Config;
use enishi_services::recording::{Reader, Stop};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::packets::{Discovery, Networks};

fn header() -> Header {
    let config = Config {
        overlay: enishi_overlay::Config::new(OverlayId::from_name("recorder")),
        addresses: vec![],
        host_name: "aki".into(),
        started_unix_s: 1_700_000_000,
    };
    Header::new(&Keypair::from_seed(&[1; 32]), &config, &[2; 32])
}

fn shared() -> Arc<Shared> {
    let networks = Arc::new(Networks::new(
        mpsc::channel(1).0,
        None,
        Discovery::default(),
        [3; 32],
    ));
    let (keypair, overlay) = (
        Keypair::from_seed(&[1; 32]),
        OverlayId::from_name("recorder"),
    );
    Arc::new(Shared::new(
        keypair,
        overlay,
        crate::config::Config::default(),
        PathBuf::new(),
        networks,
    ))
}

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("recording")
}

/// Records so many timeouts, one per second of the node's time.
fn record(recorder: &mut Recorder, steps: u64) {
    let mut node = header().node();
    for second in 1..=steps {
        let now = Time::from_secs(second);
        recorder.begin(now, &Input::Timeout);
        node.handle(now, Input::Timeout)
            .for_each(|output| recorder.output(&output));
        recorder.finish(node.next_timeout());
    }
}

/// How many steps the file holds, and how it ends.
fn read(path: &Path) -> (u64, Stop) {
    let mut steps = 0;
    let Ok(mut reader) = Reader::open(File::open(path).unwrap()) else {
        return (steps, Stop::Torn(0));
    };
    loop {
        match reader.step() {
            Ok(_) => steps += 1,
            Err(stop) => return (steps, stop),
        }
    }
}

#[tokio::test]
async fn everything_is_in_the_file_when_the_recorder_has_closed() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::open(&path(&dir), 1 << 20).unwrap();
    let mut recorder = Recorder::start(Some(target), &header(), shared()).unwrap();
    record(&mut recorder, 1000);
    recorder.close().await;
    let (steps, stop) = read(&path(&dir));
    assert_eq!(steps, 1000);
    assert!(matches!(stop, Stop::Ended(Ending::Stopped)), "{stop:?}");
}

#[tokio::test]
async fn a_full_recording_ends_with_a_word_and_a_notice() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared();
    let target = Target::open(&path(&dir), 10_000).unwrap();
    let mut recorder = Recorder::start(Some(target), &header(), Arc::clone(&shared)).unwrap();
    record(&mut recorder, 1000);
    assert!(recorder.0.is_none());
    assert!(
        shared.noted()[0].contains("size limit"),
        "{:?}",
        shared.noted()
    );
    recorder.close().await;
    // A thread of its own writes the last frame.
    let started = Instant::now();
    let (steps, stop) = loop {
        match read(&path(&dir)) {
            (_, Stop::Cut | Stop::Torn(_)) if started.elapsed() < Duration::from_secs(10) => {
                thread::sleep(Duration::from_millis(5));
            }
            read => break read,
        }
    };
    assert!(matches!(stop, Stop::Ended(Ending::Limit)), "{stop:?}");
    let length = fs::metadata(path(&dir)).unwrap().len();
    assert!(
        (100..1000).contains(&steps) && (9_000..=10_000).contains(&length),
        "{length}"
    );
}

#[test]
fn a_disk_that_fails_ends_the_recording_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(path(&dir), "").unwrap();
    let shared = shared();
    let target = Target {
        path: path(&dir),
        // Not open for writing: every attempt fails.
        file: File::open(path(&dir)).unwrap(),
        limit_bytes: 1 << 30,
    };
    let mut recorder = Recorder::start(Some(target), &header(), Arc::clone(&shared)).unwrap();
    let started = Instant::now();
    while recorder.0.is_some() {
        assert!(started.elapsed() < Duration::from_secs(10));
        record(&mut recorder, 10);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(
        shared.noted()[0].contains("cannot be written"),
        "{:?}",
        shared.noted()
    );
    record(&mut recorder, 10);
}

#[test]
fn only_an_empty_file_is_taken_and_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let taken = |path: &Path| Target::open(path, 1 << 20).map(|_| ());
    assert!(matches!(taken(dir.path()), Err(RecordError::NotOurs(_))));
    assert!(matches!(
        taken(Path::new("/dev/null")),
        Err(RecordError::NotOurs(_))
    ));
    let missing = dir.path().join("no").join("file");
    assert!(matches!(taken(&missing), Err(RecordError::Io { .. })));

    fs::write(path(&dir), "").unwrap();
    fs::set_permissions(path(&dir), Permissions::from_mode(0o644)).unwrap();
    taken(&path(&dir)).unwrap();
    let mode = fs::metadata(path(&dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, MODE);

    fs::write(path(&dir), "words").unwrap();
    assert!(matches!(taken(&path(&dir)), Err(RecordError::Exists(_))));
    assert_eq!(fs::read(path(&dir)).unwrap(), b"words");
}
