//! A witness and two nodes' ends of its connections.
