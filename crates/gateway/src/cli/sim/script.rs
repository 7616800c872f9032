//! The script that the simulated provider plays: its flags, reading the file, and waiting while it plays. What a
//! script says is `provider-sim`'s.

use std::{
    fs::File,
    future::{Future, pending},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use provider_sim::{Script, ScriptError, SimError, Simulator};
use serde::Serialize;

/// Longest file that is read. A script that repeats itself says so with `times`.
const MAX_BYTES: u64 = 1024 * 1024;

/// Which script, and with which seed.
#[derive(Clone, Debug, Args)]
pub struct ScriptArgs {
    /// Script to play from the start, TOML or JSON, at most 1 MiB; the example below shows one.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Seed of the script's random times and choices, instead of the one in it.
    #[arg(long, value_name = "N", requires = "script")]
    pub script_seed: Option<u64>,
}

/// Why a script was not played, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScriptFailed {
    #[error("cannot read the script {}: {source}; name a readable text file with --script", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: longer than {MAX_BYTES} bytes; repeat steps with `times`", path.display())]
    TooLong { path: PathBuf },
    #[error("{}: {source}; `tsh-gateway sim --help` shows a script", path.display())]
    Wrong { path: PathBuf, source: ScriptError },
    #[error("{}: {source}; mend that step, the ones after it were not played", path.display())]
    Step { path: PathBuf, source: SimError },
}

/// What is said of it at the start.
#[derive(Debug, Serialize)]
pub(super) struct Chosen<'s> {
    pub(super) file: &'s Path,
    pub(super) seed: u64,
    pub(super) events: usize,
}

impl ScriptArgs {
    /// The script, if one is named, with the seed that counts.
    pub(super) fn load(&self) -> Result<Option<Script>, ScriptFailed> {
        let Some(path) = &self.script else { return Ok(None) };
        let text = read(path)?;
        let script =
            Script::parse(&text).map_err(|source| ScriptFailed::Wrong { path: path.clone(), source })?;
        Ok(Some(match self.script_seed {
            Some(seed) => script.with_seed(seed),
            None => script,
        }))
    }

    pub(super) fn chosen(&self, script: &Script) -> Option<Chosen<'_>> {
        let file = self.script.as_deref()?;
        Some(Chosen { file, seed: script.seed(), events: script.timeline().len() })
    }

    /// Plays it until `stop`, and beyond its last event; a step that fails ends the wait.
    pub(super) async fn play(
        &self,
        simulator: &Simulator,
        script: Option<&Script>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ScriptFailed> {
        let (Some(path), Some(script)) = (&self.script, script) else {
            stop.await;
            return Ok(());
        };
        let playing = simulator.play(script);
        let played = async {
            match playing.finished().await {
                Ok(()) => pending().await,
                Err(source) => ScriptFailed::Step { path: path.clone(), source },
            }
        };
        tokio::select! {
            biased;
            () = stop => Ok(()),
            failed = played => Err(failed),
        }
    }
}

fn read(path: &Path) -> Result<String, ScriptFailed> {
    let unreadable = |source| ScriptFailed::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    // One more than allowed, to tell a file that is too long.
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ScriptFailed::TooLong { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
