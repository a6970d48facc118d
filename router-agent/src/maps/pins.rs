//! Where the pins are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{Map, MapData};
use router_common::map::LAYOUT_VERSION;

use super::{
    catalogue::Known,
    error::{MapsError, io_error},
};
use crate::dataplane::Pins;

/// The pinned maps of the layout that this program knows.
#[derive(Clone, Debug)]
pub struct PinnedMaps {
    pins: Pins,
    directory: PathBuf,
}

impl PinnedMaps {
    /// Finds the directory below the BPF file system at `bpffs`; fails if nothing is pinned.
    pub fn below(bpffs: &Path) -> Result<Self, MapsError> {
        let pins = Pins::below(bpffs);
        let pins = Self {
            directory: pins.maps(),
            pins,
        };
        let entries = fs::read_dir(&pins.directory).map(Iterator::count);
        match entries.map_err(|error| (error.kind(), error)) {
            Ok(1..) => Ok(pins),
            Ok(0) | Err((io::ErrorKind::NotFound, _)) => Err(pins.none_pinned()),
            Err((io::ErrorKind::PermissionDenied, _)) => Err(MapsError::PermissionDenied {
                path: pins.directory,
            }),
            Err((_, source)) => Err(MapsError::Directory {
                directory: pins.directory,
                source,
            }),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Opens the map pinned as `name`; `None` if there is none.
    pub(super) fn open(&self, name: &'static str) -> Result<Option<MapData>, MapsError> {
        let path = self.pins.find_map(name);
        MapData::from_pin(&path).map(Some).or_else(|error| {
            match io_error(&error).map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => Ok(None),
                Some(io::ErrorKind::PermissionDenied) => Err(MapsError::PermissionDenied { path }),
                _ => Err(MapsError::Read {
                    name,
                    source: error,
                }),
            }
        })
    }

    /// Opens a map that must be there, and of the layout that we know.
    pub(super) fn open_known(&self, known: Known) -> Result<Map, MapsError> {
        let name = known.name();
        let failed = |source| MapsError::Read { name, source };
        let data = self.open(name)?.ok_or_else(|| MapsError::NotPinned {
            name,
            directory: self.directory.clone(),
        })?;
        known.check(&data.info().map_err(failed)?)?;
        Map::from_map_data(data).map_err(failed)
    }

    fn none_pinned(&self) -> MapsError {
        let versions: Vec<String> = fs::read_dir(self.pins.top())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| *name != format!("v{LAYOUT_VERSION}"))
            .collect();
        let others = if versions.is_empty() {
            String::new()
        } else {
            format!(" (those of another layout are: {})", versions.join(", "))
        };
        MapsError::NonePinned {
            directory: self.directory.clone(),
            others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_pins_the_error_says_what_makes_them() {
        let top = std::env::temp_dir().join(format!("pins-{}", std::process::id()));
        let error = PinnedMaps::below(&top).unwrap_err().to_string();
        assert!(error.starts_with("no maps are pinned under"), "{error}");
        assert!(error.contains("`cargo xtask load`"), "{error}");
        assert!(!error.contains("another layout"), "{error}");

        fs::create_dir_all(top.join("router/v0/maps")).unwrap();
        let error = PinnedMaps::below(&top).unwrap_err().to_string();
        fs::remove_dir_all(&top).unwrap();
        assert!(error.contains("another layout are: v0"), "{error}");
    }
}
