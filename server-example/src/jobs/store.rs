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
const VERSION: i64 = 2;

/// A job's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Counts jobs.
    pub id: i64,
    /// Names the job.
    pub task_id: String,
    /// What makes its pictures: `edit` or `generate`.
    pub kind: String,
    /// What was asked for, as JSON.
    pub req_params: String,
    /// When it was accepted.
    pub in_queue_mills: i64,
    /// When its run began.
    pub start_mills: Option<i64>,
    /// When it ended.
    pub finish_mills: Option<i64>,
    /// `finished`, `failed`, `canceled` or `stop`; nothing before.
    pub task_status: Option<String>,
    /// Paths of its pictures.
    pub result: Vec<String>,
    /// Why it failed, or what was done in another way than the document has it.
    pub message: Option<String>,
    /// Who is told when it ends.
    pub webhook_url: String,
    /// How often it was begun.
    pub attempts: i64,
    /// Whether somebody has yet to be told.
    pub webhook_due: bool,
}

/// A job that is accepted.
pub struct New<'a> {
    /// Names the job.
    pub id: &'a str,
    /// What makes its pictures.
    pub kind: &'a str,
    /// What was asked for, as JSON.
    pub params: &'a str,
    /// Who is told when it ends.
    pub webhook: &'a str,
    /// What is done in another way than the document has it.
    pub message: Option<&'a str>,
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
                       result, message, webhook_url, attempts, webhook_due, kind";

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
        if version == 1 {
            // There were edits only.
            let sql = "ALTER TABLE tasks ADD COLUMN kind TEXT NOT NULL DEFAULT 'edit'";
            connection.execute_batch(sql)?;
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
                webhook_due INTEGER NOT NULL DEFAULT 0,
                kind TEXT NOT NULL DEFAULT 'edit'
            );
            CREATE INDEX IF NOT EXISTS tasks_by_time ON tasks (in_queue_mills);
            CREATE INDEX IF NOT EXISTS tasks_open ON tasks (id) WHERE finish_mills IS NULL;",
        )?;
        connection.query_row("SELECT count(*) FROM tasks WHERE id < 2", [], |_| Ok(()))?;
        connection.pragma_update(None, "user_version", VERSION)?;
        Ok(connection)
    }

    /// Writes an accepted job.
    pub fn insert(&self, job: &New<'_>, now: i64) -> rusqlite::Result<()> {
        let New { id, kind, params, webhook, message } = job;
        lock(&self.0).execute(
            "INSERT INTO tasks (task_id, kind, req_params, in_queue_mills, webhook_url, message)
                VALUES (?, ?, ?, ?, ?, ?)",
            params![id, kind, params, now, webhook, message],
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
            "UPDATE tasks SET task_status = ?, result = ?, message = coalesce(?, message), finish_mills = ?,
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
        kind: row.get(12)?,
    })
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

#[cfg(test)]
mod tests;
