//! The control thread.

mod links;
mod local;
mod verdict;
mod view;
