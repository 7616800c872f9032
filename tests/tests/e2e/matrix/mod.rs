//! The fault matrix: every fault of a provider against every kind of request, and what the caller must see.
//!
//! Each cell has a gateway and a provider of its own. It checks the reply, the log line, the provider's ledger (nothing
//! is processed twice) and that every count returns to zero. The expectations are `docs/fault-matrix.md`, compared
//! with the code: run with `TSH_WRITE_MATRIX=1` to write that file anew after a deliberate change.

mod cell;
mod faults;
mod judge;
mod stage;

use std::{any::Any, fmt::Write as _, io::Write as _, panic::AssertUnwindSafe};

use cell::{Column, run};
use faults::{Fault, all};
use futures_util::{FutureExt, StreamExt, stream};

/// Cells at once: each has a gateway of its own, and the machine has few cores. Some of them only wait.
const AT_ONCE: usize = 3;
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fault-matrix.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_against_every_kind_of_request() {
    let faults = all();
    let cells = faults.iter().flat_map(|fault| Column::ALL.map(|column| (fault, column)));
    let mut results: Vec<_> = stream::iter(cells)
        .map(|(fault, column)| async move {
            // What panics there is this cell's failure and no other's.
            let result = AssertUnwindSafe(run(fault, column)).catch_unwind().await;
            (fault.name, column, result.unwrap_or_else(|panic| Err(words_of(&*panic))))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    results.sort_by_key(|(name, column, _)| (faults.iter().position(|f| f.name == *name), *column));
    let failed: Vec<_> = results.iter().filter(|(.., result)| result.is_err()).collect();
    let (count, good) = (results.len(), results.len() - failed.len());
    let shown = table(&faults, |fault, column| {
        let (.., result) =
            results.iter().find(|(n, c, _)| *n == fault.name && *c == column).expect("a result");
        if result.is_ok() { "ok".to_owned() } else { "FAILED".to_owned() }
    });
    // Straight to the terminal: the table is wanted of a good run too.
    let _ = writeln!(std::io::stdout(), "{shown}\n{good} of {count} cells hold");
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(count >= 60, "the matrix lost cells: {count}");
}

#[test]
fn the_documented_matrix_is_the_tested_one() {
    let faults = all();
    let mut text = String::from(
        "# What a caller sees when the provider fails\n\n\
         Each cell is a test (`tests/tests/e2e/matrix`): the reply, the access log's line, the provider's own count of\n\
         what it processed, and that streams, queue and replay memory return to zero. *Answer*: the whole response of\n\
         the provider. *Answer by replay*: the same, after another attempt on another connection, because the provider\n\
         provably did not process the first. A code is that of [errors.md](errors.md), followed by the value of\n\
         `gw-retry-safe`. *Cut*: the response had begun; its body ends early and the log names the code.\n\n",
    );
    text += &table(&faults, |fault, column| fault.expected(column).to_string());
    if std::env::var_os("TSH_WRITE_MATRIX").is_some() {
        std::fs::write(DOCUMENT, &text).expect("docs/ is writable");
    }
    let written = std::fs::read_to_string(DOCUMENT).expect("docs/fault-matrix.md");
    assert_eq!(written, text, "docs/fault-matrix.md is not what is tested; TSH_WRITE_MATRIX=1 writes it");
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
}

fn table(faults: &[Fault], cell: impl Fn(&Fault, Column) -> String) -> String {
    let mut text = String::from("| fault |");
    for column in Column::ALL {
        let _ = write!(text, " {} |", column.title());
    }
    text += "\n|---|---|---|---|---|\n";
    for fault in faults {
        let _ = write!(text, "| {} |", fault.name);
        for column in Column::ALL {
            let _ = write!(text, " {} |", cell(fault, column));
        }
        text.push('\n');
    }
    text
}
