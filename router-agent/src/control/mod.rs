//! The control socket: what an operator's tool may ask of a running agent.
//!
//! JSON lines over a Unix stream socket: one request a line, one response a line, as many as the
//! client likes on one connection. [`protocol`] holds the messages, [`server`] is the agent's end
//! and [`client`] the tool's.

pub mod client;
mod peer;
pub mod permission;
pub mod protocol;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/router/control.sock";

/// Environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "ROUTER_CONTROL_SOCKET";
