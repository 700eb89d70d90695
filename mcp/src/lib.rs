//! wip
mod git;
mod inbox;
mod parent;
mod render;
mod stdio;
