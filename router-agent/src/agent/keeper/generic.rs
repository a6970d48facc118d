//! Why interfaces are in generic XDP mode, for as long as they are: who takes over a link is not told,
//! and without the reason nobody knows when native mode is worth another try.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// Of a link that an agent left which kept no reasons.
const UNKNOWN: &str = "as the agent before this one had it; another MTU, or a start after an orderly \
                       stop, has native mode tried again";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Generic {
    reason: String,
    /// The MTU, in bytes, with which native mode was refused; none if generic mode was chosen.
    mtu: Option<u32>,
}

/// By interface index, which another driver's interface never has: that is a new one.
#[derive(Debug, Default)]
pub struct Reasons {
    file: PathBuf,
    kept: BTreeMap<u32, Generic>,
}

impl Reasons {
    /// As an agent before this one has left them in `file`.
    pub fn open(file: PathBuf) -> Self {
        let kept = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                let file = file.display();
                warn!(%error, "{file} is damaged: nobody knows why generic XDP mode is used");
                BTreeMap::new()
            }),
            // No interface was in generic mode.
            Err(_) => BTreeMap::new(),
        };
        Self { file, kept }
    }

    /// Why an interface with this MTU need not be tried in native mode, if it was not chosen; none if
    /// it is to be tried again.
    pub fn against_native(&self, ifindex: u32, mtu: u32) -> Option<&str> {
        match self.kept.get(&ifindex) {
            None => Some(UNKNOWN),
            Some(generic) => (generic.mtu == Some(mtu)).then_some(&generic.reason),
        }
    }

    /// Takes in in which mode an interface is: why in generic mode, and with which MTU native mode was
    /// refused.
    pub fn set(&mut self, ifindex: u32, generic: Option<(&str, Option<u32>)>) {
        match generic {
            None => self.kept.remove(&ifindex),
            Some((reason, mtu)) => {
                let reason = reason.to_owned();
                self.kept.insert(ifindex, Generic { reason, mtu })
            }
        };
    }

    /// Forgets interfaces without programs, and has the next agent know the rest.
    pub fn keep(&mut self, has_programs: impl Fn(u32) -> bool) {
        self.kept.retain(|ifindex, _| has_programs(*ifindex));
        if let Err(error) = self.write() {
            warn!(
                "cannot write {}: {error}; the next agent will not know why generic XDP mode is used",
                self.file.display()
            );
        }
    }

    fn write(&self) -> io::Result<()> {
        if !self.kept.is_empty() {
            return fs::write(&self.file, serde_json::to_vec(&self.kept)?);
        }
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mtu_is_worth_a_try_for_the_next_agent_too() {
        let file = std::env::temp_dir().join(format!("generic-{}", std::process::id()));
        let mut reasons = Reasons::open(file.clone());
        assert_eq!(reasons.against_native(2, 9001), Some(UNKNOWN));
        reasons.set(2, Some(("the MTU is too large", Some(9001))));
        reasons.set(3, Some(("as chosen", None)));
        reasons.set(4, Some(("gone since", Some(1500))));
        reasons.keep(|ifindex| ifindex != 4);

        let mut next = Reasons::open(file.clone());
        assert_eq!(next.kept.len(), 2);
        assert_eq!(next.against_native(2, 9001), Some("the MTU is too large"));
        assert_eq!(next.against_native(2, 1500), None);
        assert_eq!(next.against_native(3, 1500), None, "chosen no more");
        next.set(2, None);
        next.keep(|_| true);
        assert_eq!(Reasons::open(file.clone()).kept.len(), 1);

        fs::write(&file, "{").unwrap();
        assert_eq!(Reasons::open(file.clone()).kept.len(), 0, "damaged");
        fs::remove_file(file).unwrap();
    }
}
