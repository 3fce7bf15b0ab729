//! A shard alone, and two of them, with bytes going in and bytes coming out.

mod initiator;
mod minority;
mod pair;
mod single;
mod world;
