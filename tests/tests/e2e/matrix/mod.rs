//! The fault matrix: every fault of a provider against every kind of request, and what the caller must see.
//!
//! Each cell has a gateway and a provider of its own. It checks the reply, the log line, the provider's ledger (nothing
//! is processed twice, no stream above its limit, none left open), that every count returns to zero and that nothing is
//! lost that provably was not processed. The expectations are `docs/fault-matrix.md`, compared
//! with the code: run with `TSH_WRITE_MATRIX=1` to write that file anew after a deliberate change.

mod cell;
mod faults;
mod judge;
mod stage;

use std::{any::Any, fmt::Write as _, io::Write as _, panic::AssertUnwindSafe};

use cell::{Column, run};
use faults::{Fault, all};
use futures_util::{FutureExt, StreamExt, stream};

/// Cells at once that wait for a limit of theirs, and use next to no processor meanwhile.
const WAITING: usize = 4;
/// The others at once: the machine has few cores.
const BUSY: usize = 2;
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fault-matrix.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_against_every_kind_of_request() {
    let faults = all();
    let cells = faults.iter().flat_map(|fault| Column::ALL.map(|column| (fault, column)));
    let (waiting, busy): (Vec<_>, Vec<_>) = cells.partition(|(fault, _)| fault.waits());
    let play = |cells: Vec<(_, _)>, at_once| stream::iter(cells).map(cell).buffer_unordered(at_once);
    let mut results: Vec<_> = stream::select(play(waiting, WAITING), play(busy, BUSY)).collect().await;
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

/// One cell and how it ended.
async fn cell((fault, column): (&Fault, Column)) -> (&'static str, Column, Result<(), String>) {
    // What panics there is this cell's failure and no other's.
    let result = AssertUnwindSafe(run(fault, column)).catch_unwind().await;
    (fault.name, column, result.unwrap_or_else(|panic| Err(words_of(&*panic))))
}

#[test]
fn the_documented_matrix_is_the_tested_one() {
    let faults = all();
    let mut text = String::from(
        "# What a caller sees when the provider fails\n\n\
         Each cell is a test (`tests/tests/e2e/matrix`): the reply, the access log's line, the provider's own\n\
         count of what it processed, that it sees no stream above its limit and none left open, that streams,\n\
         queue and replay memory return to zero, and that `tsh_unprocessed_lost_total` stays 0 unless three\n\
         attempts were used up although the body was held. *Answer*: the whole response of the provider. *Answer\n\
         by replay*: the same, after another attempt on another connection, because the provider provably did not\n\
         process the first. A code is that of [errors.md](errors.md), followed by the value of `gw-retry-safe`.\n\
         *Cut*: the response had begun; its body ends early and the log names the code.\n\n",
    );
    text += &table(&faults, |fault, column| fault.expected(column).to_string());
    if std::env::var_os("TSH_WRITE_MATRIX").is_some() {
        std::fs::write(DOCUMENT, &text).expect("docs/ is writable");
    }
    let written = std::fs::read_to_string(DOCUMENT).expect("docs/fault-matrix.md");
    assert_eq!(written, text, "docs/fault-matrix.md is not what is tested; TSH_WRITE_MATRIX=1 writes it");
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let word = panic.downcast_ref::<&str>().map(|word| (*word).to_owned());
    panic.downcast_ref::<String>().cloned().or(word).unwrap_or_else(|| "a panic".to_owned())
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
