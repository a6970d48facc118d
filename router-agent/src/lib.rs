pub mod control;
pub mod maps;
pub mod views;
