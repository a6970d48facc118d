//! What the programs say of packets: read here, and here they are told of what to speak.

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use router_common::{
    log::{Gate, Matter, Record},
    map::name,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Dataplane, MappedArray};

/// The programs' side of the log. Its maps are no part of the layout: each build of the programs begins with
/// new ones, so that what is said can change without a gap in the traffic.
pub struct ProgramLog {
    ring: AsyncFd<RingBuf<MapData>>,
    gates: MappedArray<Gate>,
    suppressed: PerCpuArray<MapData, u64>,
}

impl Dataplane {
    /// The log of these programs, from where an agent of the same build before this one has read it. There
    /// must be one reader.
    pub fn program_log(&self) -> Result<ProgramLog> {
        let open = |name| {
            MapData::from_pin(self.pins.log_map(name))
                .with_context(|| format!("cannot open map {name}"))
        };
        let ring = RingBuf::try_from(Map::RingBuf(open(name::LOG)?))?;
        // SAFETY: a `RingBuf` owns its descriptor, and nothing here closes or replaces it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE)? };
        let suppressed = Map::PerCpuArray(open(name::LOG_SUPPRESSED)?);
        Ok(ProgramLog {
            ring,
            gates: MappedArray::read_write(&open(name::LOG_GATES)?, Matter::COUNT)?,
            suppressed: suppressed.try_into()?,
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
