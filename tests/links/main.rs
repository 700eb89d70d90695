//! Two brokers joined by a real sshd on loopback; `tests/links/run` says where sshd is, and runs
//! this.

mod channels;
mod figures;
mod kills;
mod machines;
mod ssh;
