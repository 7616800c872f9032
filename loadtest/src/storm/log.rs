//! The access log, read while it is written: renamed away now and then as log rotation does, counted line by line
//! into the books, and removed, so that a long storm needs no disk.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::books::Books;

/// How often the file is renamed: 20 MB at 1,000 lines a second.
const EVERY: Duration = Duration::from_secs(20);

/// The gateway looks every second, when it writes a line, whether its file still has its name.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

/// Counts the lines of one storm.
#[derive(Clone, Debug)]
pub(super) struct LogReader {
    file: PathBuf,
    /// What stands before the number in a correlation id.
    prefix: String,
    books: Arc<Books>,
}

impl LogReader {
    /// A reader of `file`, for requests whose correlation ids are `prefix-N`.
    pub(super) fn new(file: PathBuf, prefix: &str, books: Arc<Books>) -> Self {
        Self { file, prefix: format!("\"correlation_id\":\"{prefix}-"), books }
    }

    /// Renames and counts until it is dropped.
    ///
    /// # Errors
    /// What the file system says.
    ///
    /// # Cancel safety
    /// A file that was renamed and not counted is counted by [`finish`](Self::finish).
    pub(super) async fn follow(&self) -> io::Result<()> {
        loop {
            sleep(EVERY).await;
            fs::rename(&self.file, self.aside())?;
            let deadline = Instant::now() + FOLLOWED_WITHIN;
            while !self.file.exists() {
                if Instant::now() > deadline {
                    return Err(io::Error::other("the gateway did not open its renamed access log anew"));
                }
                sleep(Duration::from_millis(50)).await;
            }
            // Megabytes of lines: off the threads that carry requests.
            let reader = self.clone();
            tokio::task::spawn_blocking(move || reader.take(&reader.aside())).await??;
        }
    }

    /// Counts what is left, once the gateway has stopped.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn finish(&self) -> io::Result<()> {
        for file in [&self.aside(), &self.file] {
            if file.exists() {
                self.take(file)?;
            }
        }
        Ok(())
    }

    fn aside(&self) -> PathBuf {
        self.file.with_extension("old")
    }

    fn take(&self, file: &Path) -> io::Result<()> {
        for line in BufReader::new(File::open(file)?).lines() {
            if let Some(sequence) = number(&line?, &self.prefix) {
                self.books.log_line(sequence);
            }
        }
        fs::remove_file(file)
    }
}

/// The number of the request that a line is about.
fn number(line: &str, prefix: &str) -> Option<u64> {
    let (_, rest) = line.split_once(prefix)?;
    rest.split_once('"')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use provider_sim::Account;

    use super::*;

    #[test]
    fn lines_are_counted_by_request_over_renamed_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let line = |n: u32| format!("{{\"time\":\"x\",\"correlation_id\":\"lg-1-{n}\",\"status\":200}}\n");
        fs::write(file.with_extension("old"), line(0) + &line(2)).unwrap();
        fs::write(&file, line(2) + "{\"correlation_id\":\"other-1\"}\n").unwrap();
        let books = Arc::new(Books::new(3));
        (0..3).for_each(|n| books.offer(n));
        LogReader::new(file.clone(), "lg-1", books.clone()).finish().unwrap();
        let logged: Vec<_> = books.entries(|_| Account::default()).map(|(_, entry)| entry.logged).collect();
        assert_eq!(logged, [1, 0, 2]);
        assert!(!file.exists(), "what was counted is removed");
    }
}
