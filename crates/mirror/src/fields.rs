//! The fields of a frame between partners that differ from frame to frame. What every frame
//! carries besides (magic, version, cluster, counter, CRCs, MAC) is added when it is sealed.

/// One frame's own fields; a kind that does not need a field leaves it 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fields {
    /// What the frame is; data-path kinds are below 0x100, `Node`'s from 0x100 on.
    pub kind: u16,
    /// Bits whose meaning belongs to the kind.
    pub flags: u16,
    /// The volume's UUID, or 0 where a frame is about the node.
    pub volume: u128,
    /// Epoch of the configuration under which it was sent.
    pub epoch: u64,
    /// Sequence number, or forward id.
    pub seq: u64,
    /// The sender's run.
    pub incarnation: u64,
    /// First byte of an extent.
    pub offset: u64,
    /// Length of an extent in bytes.
    pub length: u64,
    /// A second number whose meaning belongs to the kind (a token, another id).
    pub aux: u64,
    /// Bytes that follow the header.
    pub payload_len: u32,
    /// CRC32C of those bytes.
    pub payload_crc: u32,
}
