use super::*;

fn closed(flow: u64) -> Event {
    Event::Closed {
        flow,
        octets_in: 3,
        octets_out: 4,
        open_ms: 5,
        reason: "ended".to_owned(),
    }
}

fn write(dir: &Path, bytes_max: u64, flows: std::ops::Range<u64>) -> (u64, String) {
    let mut log = AuditLog::open_with(dir, bytes_max).unwrap();
    for flow in flows {
        log.write(&closed(flow)).unwrap();
    }
    log.head()
}

fn lines(dir: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    let found = read(dir, |line, _| lines.push(line.clone())).unwrap();
    assert_eq!(found.lines, lines.len() as u64);
    lines
}

fn flows(dir: &Path) -> Vec<u64> {
    let flow = |line: &Line| match line.event {
        Event::Closed { flow, .. } => Some(flow),
        _ => None,
    };
    lines(dir).iter().filter_map(flow).collect()
}

#[test]
fn lines_are_one_chain_over_restarts_and_files() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 600, 0..4);
    let (seq, hash) = write(dir.path(), 600, 4..8);
    assert_eq!(flows(dir.path()), (0..8).collect::<Vec<_>>());
    assert!(older_files(dir.path()).unwrap().len() >= 2);
    let (last, last_hash) = read(dir.path(), |_, _| {}).unwrap().last.unwrap();
    assert_eq!((last.seq, last_hash), (seq, hash));
    let numbers: Vec<u64> = lines(dir.path()).iter().map(|line| line.seq).collect();
    assert_eq!(numbers, (1..=seq).collect::<Vec<_>>());
}

#[test]
fn only_the_newest_files_stay_and_are_a_chain() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, 0..30);
    assert_eq!(older_files(dir.path()).unwrap().len(), FILES_MAX);
    assert!(lines(dir.path())[0].seq > 1);
    assert_eq!(flows(dir.path()).last(), Some(&29));
}

#[test]
fn a_torn_last_line_is_cut_off_and_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), FILE_BYTES_MAX, 0..3);
    let path = dir.path().join(FILE_NAME);
    let text = fs::read_to_string(&path).unwrap();
    for cut in [1, 40, text.lines().last().unwrap().len()] {
        fs::write(&path, &text[..text.len() - cut]).unwrap();
        assert_eq!(flows(dir.path()), [0, 1]);
        write(dir.path(), FILE_BYTES_MAX, 7..8);
        assert_eq!(flows(dir.path()), [0, 1, 7]);
        assert_eq!(read(dir.path(), |_, _| {}).unwrap().torn, 0);
        let octets = (text.lines().last().unwrap().len() + 1 - cut) as u64;
        let told = |line: &Line| line.event == Event::Repaired { octets };
        assert!(lines(dir.path()).iter().any(told), "{cut}");
    }
}

#[test]
fn a_line_that_was_changed_left_out_or_put_in_is_found() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), FILE_BYTES_MAX, 0..5);
    let path = dir.path().join(FILE_NAME);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let found_at = |lines: &[&str]| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        assert!(AuditLog::open(dir.path()).is_err(), "it does not open");
        match read(dir.path(), |_, _| {}) {
            Err(AuditError::Changed { line, .. }) => line,
            other => panic!("{other:?}"),
        }
    };
    let changed = lines[3].replace("\"octets_out\":4", "\"octets_out\":5");
    assert_ne!(changed, lines[3]);
    assert_eq!(
        found_at(&[&lines[..3], &[&changed], &lines[4..]].concat()),
        4
    );
    assert_eq!(found_at(&[&lines[..3], &lines[4..]].concat()), 4);
    assert_eq!(found_at(&[&lines[..3], &lines[2..]].concat()), 4);
    assert_eq!(found_at(&lines[1..]), 1);
    assert_eq!(found_at(&[&lines[..2], &["{}"], &lines[2..]].concat()), 3);
}

#[test]
fn a_log_without_its_oldest_files_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 600, 0..8);
    let older = older_files(dir.path()).unwrap();
    assert!(older.len() >= 2 && older.len() < FILES_MAX);
    for (_, path) in older {
        fs::remove_file(path).unwrap();
        let read = read(dir.path(), |_, _| {});
        assert!(
            matches!(read, Err(AuditError::Changed { line: 1, .. })),
            "{read:?}"
        );
    }
    assert!(AuditLog::open(dir.path()).is_err());

    // Of a log whose oldest files were removed as they should be, too.
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, 0..30);
    fs::remove_file(&older_files(dir.path()).unwrap()[0].1).unwrap();
    assert!(read(dir.path(), |_, _| {}).is_err());
}

#[test]
fn an_old_file_that_cannot_be_removed_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open_with(dir.path(), 1).unwrap();
    // No file, so it is not removed as one.
    let stuck = dir.path().join("audit-0.log");
    fs::create_dir(&stuck).unwrap();
    for flow in 0..12 {
        log.write(&closed(flow)).unwrap();
    }
    fs::remove_dir(&stuck).unwrap();
    assert_eq!(flows(dir.path()), (0..12).collect::<Vec<_>>());
    log.write(&closed(12)).unwrap();
    assert_eq!(older_files(dir.path()).unwrap().len(), FILES_MAX);
    assert_eq!(flows(dir.path()).last(), Some(&12));
}

#[test]
fn a_file_that_cannot_be_begun_leaves_the_log_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open_with(dir.path(), 1).unwrap();
    log.write(&closed(0)).unwrap();
    // The name that the file is to get cannot be had.
    let first = lines(dir.path()).last().unwrap().seq - 1;
    let taken = dir.path().join(format!("audit-{first}.log/x"));
    fs::create_dir_all(&taken).unwrap();
    assert!(log.write(&closed(1)).is_err());
    fs::remove_dir_all(taken.parent().unwrap()).unwrap();
    assert_eq!(flows(dir.path()), [0]);
    log.write(&closed(2)).unwrap();
    drop(log);
    assert_eq!(flows(dir.path()), [0, 2]);

    // Broken off between giving the old file its name and the first line of the other.
    let newest = dir.path().join(FILE_NAME);
    let first = first_seq(&newest).unwrap().unwrap();
    fs::rename(&newest, dir.path().join(format!("audit-{first}.log"))).unwrap();
    write(dir.path(), 600, 3..4);
    assert_eq!(flows(dir.path()), [0, 2, 3]);
}
