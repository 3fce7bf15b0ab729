//! Stories of two nodes.
