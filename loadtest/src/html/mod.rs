//! `loadgen html`: one page of everything in a folder of reports, that needs nothing beside itself.
//!
//! Owns the order of the page. No script, no font and no picture comes from elsewhere; the drawings are made here.

mod bars;
mod curves;
mod folder;
mod page;
mod scenario;
mod stats;
mod summary;
mod svg;
mod timeline;
mod times;

#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Write},
};

use self::folder::Folder;
pub(crate) use self::{
    folder::{Document, Sample},
    stats::Spread,
};
use crate::{args::HtmlArgs, error::Error};

/// Name of the page in its folder.
const FILE: &str = "report.html";

/// Reads the folder, writes the page into it, and says where it is.
///
/// # Errors
/// What cannot be read or written.
pub(crate) fn run(args: &HtmlArgs, out: &mut dyn Write) -> Result<(), Error> {
    let folder = Folder::read(&args.folder)?;
    let name = args.folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_owned()));
    let title = name.unwrap_or_default().to_string_lossy().into_owned();
    let file = args.folder.join(FILE);
    let page = page::render(&folder, &title, &args.ours);
    fs::write(&file, page).map_err(|source| Error::File { action: "write", path: file.clone(), source })?;
    let written: io::Result<()> = writeln!(out, "{}", file.display());
    written.map_err(|source| Error::System { action: "write where the page is", source })
}
