//! `maps list`.

use std::path::PathBuf;

use serde::Serialize;

use super::{MapsError, PinnedMaps, catalogue::Known};

/// What is pinned.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Maps {
    /// In which they are pinned.
    pub directory: PathBuf,
    /// Every map of this layout.
    pub maps: Vec<MapFacts>,
}

/// A map of this layout.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MapFacts {
    /// As `routerctl maps dump` takes it.
    pub name: &'static str,
    /// Whether it is pinned.
    pub present: bool,
    /// The kernel's facts, if it is.
    #[serde(flatten)]
    pub kernel: Option<KernelFacts>,
}

/// What the kernel tells of a map.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KernelFacts {
    /// The kernel's name for its sort.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of one key.
    pub key_size_bytes: u32,
    /// On one CPU, if the map has a value for each.
    pub value_size_bytes: u32,
    /// How many it has room for, or has if it is an array.
    pub max_entries: u32,
    /// By which the kernel knows it.
    pub id: u32,
}

/// Looks for every map of this layout.
pub fn list(pins: &PinnedMaps) -> Result<Maps, MapsError> {
    let maps = Known::ALL
        .into_iter()
        .map(|known| {
            let kernel = facts(pins, known)?;
            Ok(MapFacts {
                name: known.name(),
                present: kernel.is_some(),
                kernel,
            })
        })
        .collect::<Result<_, MapsError>>()?;
    Ok(Maps {
        directory: pins.directory().to_owned(),
        maps,
    })
}

fn facts(pins: &PinnedMaps, known: Known) -> Result<Option<KernelFacts>, MapsError> {
    let name = known.name();
    let Some(map) = pins.open(name)? else {
        return Ok(None);
    };
    let info = map
        .info()
        .map_err(|source| MapsError::Read { name, source })?;
    Ok(Some(KernelFacts {
        kind: info
            .map_type()
            .map_or_else(|_| "unknown".to_owned(), |kind| format!("{kind:?}")),
        key_size_bytes: info.key_size(),
        value_size_bytes: info.value_size(),
        max_entries: info.max_entries(),
        id: info.id(),
    }))
}
