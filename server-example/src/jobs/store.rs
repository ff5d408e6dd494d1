//! The database of jobs: `outputs/db.sqlite3`.
//!
//! A row is written when its job is accepted, when its run begins (only to count how often it was
//! tried) and when it ends.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::engine::lock;

/// Version of the table.
const VERSION: i64 = 1;

/// A job's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Counts jobs.
    pub id: i64,
    /// Names the job.
    pub task_id: String,
    /// What was asked for, as JSON.
    pub req_params: String,
    /// When it was accepted.
    pub in_queue_mills: i64,
    /// When its run began.
    pub start_mills: Option<i64>,
    /// When it ended.
    pub finish_mills: Option<i64>,
    /// `finished`, `failed` or `canceled`; nothing before.
    pub task_status: Option<String>,
    /// Paths of its pictures.
    pub result: Vec<String>,
    /// Why it failed.
    pub message: Option<String>,
    /// Who is told when it ends.
    pub webhook_url: String,
    /// How often it was begun.
    pub attempts: i64,
    /// Whether somebody has yet to be told.
    pub webhook_due: bool,
}

/// Which rows of the history are meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    /// Accepted then or later.
    pub start: Option<i64>,
    /// Accepted then or earlier.
    pub end: Option<i64>,
}

/// The database.
pub struct Store(Mutex<Connection>);

const COLUMNS: &str = "id, task_id, req_params, in_queue_mills, start_mills, finish_mills, task_status, \
                       result, message, webhook_url, attempts, webhook_due";

impl Store {
    /// Opens or makes the database. One that is damaged is put aside, loudly, and a new one begun.
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |e: rusqlite::Error| format!("cannot open {}: {e}", path.display());
        match Self::connect(path) {
            Ok(connection) => Ok(Self(Mutex::new(connection))),
            Err(error) if is_damaged(&error) => {
                let aside = format!("{}.corrupt-{}", path.display(), crate::ids::now_millis());
                tracing::error!("{} is damaged ({error}); it is kept as {aside}", path.display());
                std::fs::rename(path, &aside).map_err(|e| format!("cannot rename it: {e}"))?;
                // What was not yet written back belongs to the damaged file.
                for end in ["-wal", "-shm"] {
                    let beside = format!("{}{end}", path.display());
                    if std::fs::exists(&beside).unwrap_or(false) {
                        let aside = format!("{aside}{end}");
                        std::fs::rename(&beside, aside).map_err(|e| e.to_string())?;
                    }
                }
                Ok(Self(Mutex::new(Self::connect(path).map_err(failed)?)))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn connect(path: &Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // An accepted job survives a power cut, not only the end of the process.
        connection.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > VERSION {
            let text = format!("its version is {version}, and this server knows {VERSION}");
            return Err(rusqlite::Error::InvalidParameterName(text));
        }
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS tasks (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                task_id TEXT NOT NULL UNIQUE,
                req_params TEXT NOT NULL,
                in_queue_mills INTEGER NOT NULL,
                start_mills INTEGER,
                finish_mills INTEGER,
                task_status TEXT,
                result TEXT NOT NULL DEFAULT '[]',
                message TEXT,
                webhook_url TEXT NOT NULL DEFAULT '',
                attempts INTEGER NOT NULL DEFAULT 0,
                webhook_due INTEGER NOT NULL DEFAULT 0
            );
            CREATE INDEX IF NOT EXISTS tasks_by_time ON tasks (in_queue_mills);
            CREATE INDEX IF NOT EXISTS tasks_open ON tasks (id) WHERE finish_mills IS NULL;",
        )?;
        connection.query_row("SELECT count(*) FROM tasks WHERE id < 2", [], |_| Ok(()))?;
        connection.pragma_update(None, "user_version", VERSION)?;
        Ok(connection)
    }

    /// Writes an accepted job.
    pub fn insert(&self, id: &str, params: &str, now: i64, webhook: &str) -> rusqlite::Result<()> {
        lock(&self.0).execute(
            "INSERT INTO tasks (task_id, req_params, in_queue_mills, webhook_url) VALUES (?, ?, ?, ?)",
            params![id, params, now, webhook],
        )?;
        Ok(())
    }

    /// Counts a run of a job, and says how many there were.
    pub fn begin(&self, id: &str, now: i64) -> rusqlite::Result<i64> {
        lock(&self.0).query_row(
            "UPDATE tasks SET attempts = attempts + 1, start_mills = ? WHERE task_id = ? RETURNING attempts",
            params![now, id],
            |row| row.get(0),
        )
    }

    /// Ends a job that has not ended. Says whether this was the end.
    pub fn finish(
        &self,
        id: &str,
        status: &str,
        result: &[String],
        message: Option<&str>,
        now: i64,
    ) -> rusqlite::Result<bool> {
        let result = serde_json::to_string(result).unwrap_or_default();
        let changed = lock(&self.0).execute(
            "UPDATE tasks SET task_status = ?, result = ?, message = ?, finish_mills = ?,
                webhook_due = webhook_url <> '' WHERE task_id = ? AND finish_mills IS NULL",
            params![status, result, message, now, id],
        )?;
        Ok(changed == 1)
    }

    /// Somebody was told, or cannot be.
    pub fn webhook_done(&self, id: &str) -> rusqlite::Result<()> {
        lock(&self.0).execute("UPDATE tasks SET webhook_due = 0 WHERE task_id = ?", [id])?;
        Ok(())
    }

    /// A job.
    pub fn get(&self, id: &str) -> rusqlite::Result<Option<Record>> {
        let sql = format!("SELECT {COLUMNS} FROM tasks WHERE task_id = ?");
        lock(&self.0).query_row(&sql, [id], record).optional()
    }

    /// Jobs that have not ended, in the order in which they were accepted.
    pub fn open_jobs(&self) -> rusqlite::Result<Vec<Record>> {
        self.list(
            &format!("SELECT {COLUMNS} FROM tasks WHERE finish_mills IS NULL ORDER BY id"),
            &[],
        )
    }

    /// Jobs whose end somebody has yet to be told.
    pub fn webhooks_due(&self) -> rusqlite::Result<Vec<Record>> {
        self.list(&format!("SELECT {COLUMNS} FROM tasks WHERE webhook_due = 1 ORDER BY id"), &[])
    }

    /// Jobs that have ended: a page of the newest first, or all of a range in order.
    pub fn history(&self, range: Range, page: i64, size: i64) -> rusqlite::Result<Vec<Record>> {
        if range.start.is_none() && range.end.is_none() {
            let sql = format!(
                "SELECT {COLUMNS} FROM tasks WHERE finish_mills IS NOT NULL ORDER BY id DESC LIMIT ? OFFSET ?"
            );
            return self.list(&sql, &[&size, &page.saturating_mul(size)]);
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks WHERE finish_mills IS NOT NULL AND in_queue_mills BETWEEN ? AND ? \
             ORDER BY id"
        );
        let (start, end) = range.bounds();
        self.list(&sql, &[&start, &end])
    }

    /// Forgets jobs of a range that have ended, and gives them back.
    pub fn delete_range(&self, range: Range) -> rusqlite::Result<Vec<Record>> {
        let sql = format!(
            "DELETE FROM tasks WHERE finish_mills IS NOT NULL AND in_queue_mills BETWEEN ? AND ? \
             RETURNING {COLUMNS}"
        );
        let (start, end) = range.bounds();
        self.list(&sql, &[&start, &end])
    }

    /// Forgets a job that has ended, and gives it back.
    pub fn delete(&self, id: &str) -> rusqlite::Result<Option<Record>> {
        let sql = format!(
            "DELETE FROM tasks WHERE finish_mills IS NOT NULL AND task_id = ? RETURNING {COLUMNS}"
        );
        lock(&self.0).query_row(&sql, [id], record).optional()
    }

    /// A time in ISO 8601 as milliseconds since 1970; without an offset it is local.
    pub fn millis(&self, time: &str) -> rusqlite::Result<Option<i64>> {
        let bytes = time.as_bytes();
        let is_digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
        // SQLite takes much more for a time, such as `now` and plain numbers.
        if !(is_digit(0) && is_digit(3) && bytes.get(4) == Some(&b'-')) {
            return Ok(None);
        }
        let has_offset =
            time.ends_with('Z') || time.get(19..).is_some_and(|t| t.contains(['+', '-']));
        let sql = match has_offset {
            true => "SELECT CAST(strftime('%s', ?) AS INTEGER) * 1000",
            false => "SELECT CAST(strftime('%s', ?, 'utc') AS INTEGER) * 1000",
        };
        lock(&self.0).query_row(sql, [time], |row| row.get(0))
    }

    /// The local day of a time.
    pub fn day(&self, millis: i64) -> rusqlite::Result<String> {
        let sql = "SELECT strftime('%Y-%m-%d', ?, 'unixepoch', 'localtime')";
        lock(&self.0).query_row(sql, [millis / 1000], |row| row.get(0))
    }

    fn list(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<Record>> {
        lock(&self.0).prepare_cached(sql)?.query_map(values, record)?.collect()
    }
}

impl Range {
    fn bounds(self) -> (i64, i64) {
        (self.start.unwrap_or(i64::MIN), self.end.unwrap_or(i64::MAX))
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let result: String = row.get(7)?;
    Ok(Record {
        id: row.get(0)?,
        task_id: row.get(1)?,
        req_params: row.get(2)?,
        in_queue_mills: row.get(3)?,
        start_mills: row.get(4)?,
        finish_mills: row.get(5)?,
        task_status: row.get(6)?,
        result: serde_json::from_str(&result).unwrap_or_default(),
        message: row.get(8)?,
        webhook_url: row.get(9)?,
        attempts: row.get(10)?,
        webhook_due: row.get(11)?,
    })
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db.sqlite3")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_job_ends_once() {
        let (_folder, store) = store();
        store.insert("a", "{}", 1000, "").unwrap();
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
            store.insert(&format!("t{i}"), "{}", 1000 * i, "").unwrap();
            if i < 4 {
                store.finish(&format!("t{i}"), "finished", &[], None, 9000).unwrap();
            }
        }
        let ids =
            |records: Vec<Record>| -> Vec<_> { records.into_iter().map(|r| r.task_id).collect() };
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
        std::fs::write(&path, "this is no database, and long enough to be one".repeat(100))
            .unwrap();
        let store = Store::open(&path).unwrap();
        store.insert("a", "{}", 1, "").unwrap();
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
        store.insert("a", "{}", 1, "").unwrap();
        drop(store);
        let path = folder.path().join("db.sqlite3");
        std::fs::write(folder.path().join("db.sqlite3-wal"), [7; 5000]).unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.open_jobs().unwrap().len(), 1);
        store.insert("b", "{}", 2, "").unwrap();
    }

    #[test]
    fn a_clock_that_goes_back_changes_no_order() {
        let (_folder, store) = store();
        for (id, now) in [("a", 5000), ("b", 1000), ("c", 3000)] {
            store.insert(id, "{}", now, "").unwrap();
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
        let many =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
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
}
