//! The table: what ends once, what is listed, and what happens to files that are damaged or old.

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db.sqlite3")).unwrap();
    (folder, store)
}

fn add(store: &Store, id: &str, now: i64) -> rusqlite::Result<()> {
    let job = New { id, kind: "edit", params: "{}", webhook: "", message: None };
    store.insert(&job, now)
}

#[test]
fn a_database_of_the_first_version_is_taken_over() {
    let (folder, store) = store();
    add(&store, "a", 1).unwrap();
    let database = lock(&store.0);
    database.execute("ALTER TABLE tasks DROP COLUMN kind", []).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    drop(database);
    drop(store);
    let store = Store::open(&folder.path().join("db.sqlite3")).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap().kind, "edit");
}

#[test]
fn a_job_ends_once() {
    let (_folder, store) = store();
    add(&store, "a", 1000).unwrap();
    assert_eq!(store.begin("a", 1001).unwrap(), 1);
    assert_eq!(store.begin("a", 1002).unwrap(), 2);
    assert!(store.finish("a", "finished", &["x.png".into()], None, 1003).unwrap());
    assert!(!store.finish("a", "failed", &[], Some("late"), 1004).unwrap());
    let found = store.get("a").unwrap().unwrap();
    assert_eq!(found.task_status.as_deref(), Some("finished"));
    assert_eq!((found.result, found.attempts), (vec!["x.png".to_owned()], 2));
    assert!(store.open_jobs().unwrap().is_empty());
}

#[test]
fn history_is_paged_or_of_a_range_and_running_jobs_are_not_deleted() {
    let (_folder, store) = store();
    for i in 0..5 {
        add(&store, &format!("t{i}"), 1000 * i).unwrap();
        if i < 4 {
            store.finish(&format!("t{i}"), "finished", &[], None, 9000).unwrap();
        }
    }
    let ids = |records: Vec<Record>| -> Vec<_> { records.into_iter().map(|r| r.task_id).collect() };
    assert_eq!(ids(store.history(Range::default(), 0, 3).unwrap()), ["t3", "t2", "t1"]);
    assert_eq!(ids(store.history(Range::default(), 1, 3).unwrap()), ["t0"]);
    let range = Range { start: Some(1000), end: Some(2000) };
    assert_eq!(ids(store.history(range, 7, 1).unwrap()), ["t1", "t2"]);
    let all = Range { start: Some(0), end: None };
    assert_eq!(store.delete_range(all).unwrap().len(), 4);
    assert_eq!(ids(store.open_jobs().unwrap()), ["t4"]);
    assert!(store.delete("t4").unwrap().is_none());
}

#[test]
fn times_are_read_as_iso_8601() {
    let (_folder, store) = store();
    assert_eq!(store.millis("1970-01-01T00:01:00Z").unwrap(), Some(60_000));
    assert_eq!(store.millis("1970-01-01T01:00:00+01:00").unwrap(), Some(0));
    assert!(store.millis("2024-07-03T12:22:30").unwrap().is_some());
    for garbage in ["", "now", "2460000.5", "2024-13-40T00:00:00", "' OR 1=1 --"] {
        assert_eq!(store.millis(garbage).unwrap(), None, "{garbage}");
    }
}

#[test]
fn a_damaged_database_is_put_aside_and_a_newer_one_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    std::fs::write(&path, "this is no database, and long enough to be one".repeat(100)).unwrap();
    let store = Store::open(&path).unwrap();
    add(&store, "a", 1).unwrap();
    let names = std::fs::read_dir(folder.path()).unwrap();
    let aside =
        names.filter(|n| n.as_ref().unwrap().file_name().to_string_lossy().contains("corrupt"));
    assert_eq!(aside.count(), 1);
    lock(&store.0).pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    assert!(Store::open(&path).err().unwrap().contains("99"));
    let inside = path.with_file_name("folder");
    std::fs::create_dir(&inside).unwrap();
    assert!(Store::open(&inside).err().unwrap().contains("cannot open"));
}

#[test]
fn what_a_broken_log_beside_the_database_says_is_ignored() {
    let (folder, store) = store();
    add(&store, "a", 1).unwrap();
    drop(store);
    let path = folder.path().join("db.sqlite3");
    std::fs::write(folder.path().join("db.sqlite3-wal"), [7; 5000]).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.open_jobs().unwrap().len(), 1);
    add(&store, "b", 2).unwrap();
}

#[test]
fn a_clock_that_goes_back_changes_no_order() {
    let (_folder, store) = store();
    for (id, now) in [("a", 5000), ("b", 1000), ("c", 3000)] {
        add(&store, id, now).unwrap();
    }
    let ids: Vec<_> = store.open_jobs().unwrap().into_iter().map(|r| r.task_id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    store.begin("a", 4000).unwrap();
    assert!(store.finish("a", "finished", &[], None, 900).unwrap());
    assert_eq!(store.history(Range::default(), 0, 9).unwrap()[0].task_id, "a");
}

#[test]
fn a_page_of_a_long_history_comes_quickly() {
    let (_folder, store) = store();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
        INSERT INTO tasks (task_id, req_params, in_queue_mills, finish_mills, task_status)
        SELECT 't' || i, '{}', i, i, 'finished' FROM n";
    lock(&store.0).execute(many, []).unwrap();
    for page in [0, 5000] {
        let times = (0..5).map(|_| {
            let start = std::time::Instant::now();
            assert_eq!(store.history(Range::default(), page, 10).unwrap().len(), 10);
            start.elapsed()
        });
        // The best of them: others may have been held up.
        assert!(times.min().unwrap() < Duration::from_millis(50));
    }
}
