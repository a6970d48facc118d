//! What is true of the tunnels and around them at present: the keeper writes it, an operator's question reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock_health::ClockHealth;
use crate::{
    control::protocol::InterfaceStatus,
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

/// Of all tunnels, in the configuration's order, and of what is around them. Locked for no longer than a
/// copy takes.
#[derive(Debug)]
pub struct Presents {
    tunnels: Mutex<Vec<Present>>,
    interfaces: Mutex<Vec<InterfaceStatus>>,
    /// Why what a group should protect is not fenced.
    fences: Mutex<Vec<(u32, String)>>,
    clock: Mutex<ClockHealth>,
}

impl Presents {
    pub fn new(tunnels: Vec<Present>, clock: ClockHealth) -> Self {
        Self {
            tunnels: Mutex::new(tunnels),
            interfaces: Mutex::default(),
            fences: Mutex::default(),
            clock: Mutex::new(clock),
        }
    }

    pub fn set(&self, position: usize, present: Present) {
        if let Some(place) = lock(&self.tunnels).get_mut(position) {
            *place = present;
        }
    }

    pub fn all(&self) -> Vec<Present> {
        lock(&self.tunnels).clone()
    }

    pub fn set_interfaces(&self, interfaces: Vec<InterfaceStatus>) {
        *lock(&self.interfaces) = interfaces;
    }

    pub fn set_clock(&self, clock: ClockHealth) {
        *lock(&self.clock) = clock;
    }

    pub fn clock(&self) -> ClockHealth {
        lock(&self.clock).clone()
    }

    pub fn set_fence_notes(&self, notes: Vec<(u32, String)>) {
        *lock(&self.fences) = notes;
    }

    pub fn fence_notes(&self) -> Vec<(u32, String)> {
        lock(&self.fences).clone()
    }

    pub fn interfaces(&self) -> Vec<InterfaceStatus> {
        lock(&self.interfaces).clone()
    }
}

/// A panic elsewhere leaves whole values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
