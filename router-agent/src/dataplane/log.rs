//! What the programs say of packets: read here, and here they are told of what to speak.

use std::{fs, io, os::fd::AsFd as _};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray, RingBuf},
};
use router_common::{
    log::{Gate, Matter, Record},
    map::name,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Dataplane, MappedArray, Pins};

/// The programs' side of the log. Its maps are no part of the layout: each agent begins with new ones, so
/// that what is said can change without a gap in the traffic.
pub struct ProgramLog {
    ring: AsyncFd<RingBuf<MapData>>,
    gates: MappedArray<Gate>,
    suppressed: PerCpuArray<MapData, u64>,
}

impl Dataplane {
    /// The log of these programs, and its maps pinned for who wants to look. There must be one reader.
    pub fn program_log(&self) -> Result<ProgramLog> {
        let [ring, gates, suppressed] = [name::LOG, name::LOG_GATES, name::LOG_SUPPRESSED]
            .map(|name| open(&self.programs, name));
        let (gates, suppressed) = (gates?, suppressed?);
        pin(&gates, &self.pins, name::LOG_GATES)?;
        pin(&suppressed, &self.pins, name::LOG_SUPPRESSED)?;
        let ring = RingBuf::try_from(Map::RingBuf(ring?))?;
        // SAFETY: a `RingBuf` owns its descriptor, and nothing here closes or replaces it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE)? };
        Ok(ProgramLog {
            ring,
            gates: MappedArray::read_write(&gates, Matter::COUNT)?,
            suppressed: Map::PerCpuArray(suppressed).try_into()?,
        })
    }
}

impl ProgramLog {
    /// Has the programs speak of a matter, or be silent about it.
    pub fn open(&self, matter: Matter, is_open: bool) {
        let before = self.gates.read(matter as u32);
        if (before.is_open != 0) != is_open {
            self.gates.write(matter as u32, &Gate::of(is_open));
        }
    }

    /// Waits until there is something to read.
    pub async fn readable(&self) -> Result<()> {
        self.ring.readable().await?.clear_ready();
        Ok(())
    }

    /// The next record, unless all have been read.
    pub fn take(&mut self) -> Option<Record> {
        loop {
            let bytes = self.ring.get_mut().next()?;
            if let Ok(record) = bytemuck::try_pod_read_unaligned(&bytes) {
                return Some(record);
            }
        }
    }

    /// How many records of a matter were held back.
    pub fn suppressed(&self, matter: Matter) -> Result<u64> {
        let each_cpu = self.suppressed.get(&(matter as u32), 0)?;
        Ok(each_cpu.iter().sum())
    }
}

/// The same map by a descriptor of our own: programs are loaded by those of `programs` at any time.
fn open(programs: &Ebpf, name: &str) -> Result<MapData> {
    let data = match programs.map(name) {
        Some(Map::Array(data) | Map::PerCpuArray(data) | Map::RingBuf(data)) => data,
        Some(_) => bail!("map {name} is of another type"),
        None => return Err(anyhow!("the object has no map {name}")),
    };
    let fd = data.fd().as_fd().try_clone_to_owned()?;
    MapData::from_fd(fd).with_context(|| format!("cannot open map {name}"))
}

/// In the place of what an agent before this one pinned.
fn pin(map: &MapData, pins: &Pins, name: &str) -> Result<()> {
    let path = pins.map(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
    .and_then(|()| map.pin(&path).map_err(io::Error::other))
    .with_context(|| format!("cannot pin map {name} at {}", path.display()))
}
