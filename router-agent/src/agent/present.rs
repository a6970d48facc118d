//! What is true of each tunnel at present: the keeper writes it, an operator's question reads it.

use std::sync::{Mutex, PoisonError};

use crate::{
    dataplane::Mode,
    tunnel::{keepalive::Keepalive, state::LearntMtu},
};

/// Of one tunnel.
#[derive(Clone, Debug)]
pub struct Present {
    /// Of its device, in bytes.
    pub mtu: u32,
    pub path_mtu: Option<LearntMtu>,
    /// None while no interface has the tunnel's address.
    pub underlay: Option<String>,
    /// None while the programs are not on the underlay.
    pub mode: Option<Mode>,
    pub keepalive: Option<Keepalive>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Of all tunnels, in the configuration's order. Locked for no longer than a copy takes.
#[derive(Debug)]
pub struct Presents(Mutex<Vec<Present>>);

impl Presents {
    pub fn new(presents: Vec<Present>) -> Self {
        Self(Mutex::new(presents))
    }

    pub fn set(&self, position: usize, present: Present) {
        let mut presents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = presents.get_mut(position) {
            *place = present;
        }
    }

    pub fn all(&self) -> Vec<Present> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
