//! The whole program through its real binaries: processes, sockets, kills, bad input, the person's
//! commands.
//!
//! One binary, because each one more would link the broker, the search index and the runtime again.
//! A module is a subject; `cargo test --workspace --test e2e hooks::` runs the tests of one.
//! Modules share no state but the process: whoever measures the machine or fills it takes
//! [`peer_tests::serial`].

mod bad_input;
mod bad_team_input;
mod brakes;
mod bulk;
mod channels;
mod configuration;
mod contract;
mod damage;
mod doctor;
mod faults;
mod hook_input;
mod hooks;
mod identity;
mod inbox_socket;
mod json;
mod kills;
mod lifecycle;
mod main_job;
mod memory;
mod neighbours;
mod odd_clients;
mod parity;
mod person;
mod places;
mod policy;
mod questions;
mod retention;
mod rmcp_client;
mod sandbox;
mod schemas;
mod search;
mod search_process;
mod setup;
mod setup_asks;
mod starting;
mod store_states;
mod tasks;
mod terminal;
mod wire_python;
mod working_day;
