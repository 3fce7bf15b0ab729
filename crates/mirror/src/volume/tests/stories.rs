//! Stories of a few lines.
