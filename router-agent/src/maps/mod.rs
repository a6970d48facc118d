//! The pinned maps as an operator may look into them: without an agent, by their pins alone.
//!
//! `pins` finds them, `catalogue` knows what each holds, `dump` reads one, `decode` turns
//! its bytes' types into named fields, and `view` shows them. `clear` is the one that writes.

mod catalogue;
mod clear;
mod decode;
mod dump;
mod error;
mod fields;
mod interface;
mod list;
mod pins;
mod read;
pub mod view;

pub use catalogue::Known;
pub use clear::clear_epochs;
pub use decode::{Decode, flag_names};
pub use dump::{Dump, Entry, dump};
pub use error::MapsError;
pub use fields::Fields;
pub use interface::{InterfaceNames, KernelInterfaces};
pub use list::{MapFacts, Maps, list};
pub use pins::PinnedMaps;
