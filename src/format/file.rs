//! Features into files that are made as a whole before they can be sent, since their heads tell what comes later.
//!
//! Files are made in the system's directory for temporary ones (`TMPDIR`) and are gone when they are closed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use super::gml::Selection;
use super::zip;
use crate::model::crs::Crs;
use crate::model::{Feature, FeatureType, GeometryError};

/// Why a feature is not in a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It has no place in the CRS.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The format has no form for it, or no room.
    #[error("{0}")]
    Format(String),
    #[error("a temporary file: {0}")]
    Io(#[from] io::Error),
}

/// What is to be sent.
pub enum Content {
    File(File),
    Zip(Vec<zip::Entry>),
}

/// A file, or several, being made. It blocks.
pub trait FeatureFile: Send {
    /// What follows are features of `ft`, with coordinates in `crs`. A type comes once.
    fn begin(&mut self, ft: &FeatureType, crs: Crs, selection: &Selection) -> Result<(), FileError>;
    fn write(&mut self, feature: &Feature) -> Result<(), FileError>;
    fn finish(self: Box<Self>) -> Result<Content, FileError>;
}

/// A path for a temporary file that nobody else has.
pub fn temporary_path() -> PathBuf {
    std::env::temp_dir().join(format!("alluvium-{}", uuid::Uuid::now_v7()))
}

/// A file without a name.
pub fn temporary() -> io::Result<File> {
    let path = temporary_path();
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
