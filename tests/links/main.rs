//! Two brokers joined by a real sshd, or by a real nats-server, on loopback; `tests/links/run` says where both are, and runs
//! this.

mod channels;
mod figures;
mod kills;
mod machines;
mod nats;
mod nats_kills;
mod nats_server;
mod ssh;
