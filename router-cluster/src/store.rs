//! An arbiter for tests: one record, compare-and-swap.

use std::num::NonZeroU64;

use super::{Answer, Record, Request, Revision, node::Planted};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    pub record: Option<(Revision, Record)>,
    /// Writes so far.
    pub writes: u64,
}

impl Store {
    pub fn serve(&mut self, request: Request, planted: Option<Planted>) -> Answer {
        match request {
            Request::Read => Answer::Found(self.record),
            Request::Swap { expected, record } => {
                let found = self.record.map(|(revision, _)| revision);
                let blind = match planted {
                    Some(Planted::BlindSwap) => true,
                    // It pretended to have a record.
                    Some(Planted::MissingIsFresh) => found.is_none(),
                    Some(_) | None => false,
                };
                if found != expected && !blind {
                    return Answer::Found(self.record);
                }
                self.writes += 1;
                let revision = Revision(NonZeroU64::new(self.writes).expect("counted from one"));
                self.record = Some((revision, record));
                Answer::Swapped(revision)
            }
        }
    }

    /// It forgets all, as one does that was made anew.
    pub fn wipe(&mut self) {
        *self = Self::default();
    }
}
