//! Commands as CDBs (SPC-4, SBC-3), each with the data it sends or the length it wants back.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// One SCSI command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Logical unit, 0 to 255 (peripheral addressing).
    pub lun: u8,
    /// Zero-padded to 16 bytes.
    pub cdb: [u8; 16],
    /// What goes to the target, shared so that it can be sent again on another path.
    pub data_out: Arc<[u8]>,
    /// How many bytes may come back.
    pub expect_in: u32,
}

impl Command {
    /// Any CDB of up to 16 bytes; longer ones are cut.
    pub fn raw(lun: u8, cdb: &[u8], data_out: &[u8], expect_in: u32) -> Self {
        let mut bytes = [0; 16];
        let len = cdb.len().min(16);
        bytes[..len].copy_from_slice(&cdb[..len]);
        Self {
            lun,
            cdb: bytes,
            data_out: data_out.into(),
            expect_in,
        }
    }

    /// READ (16). `bytes`: blocks × block size.
    pub fn read(lun: u8, lba: u64, blocks: u32, bytes: u32) -> Self {
        Self {
            lun,
            cdb: range16(0x88, lba, blocks),
            data_out: Arc::from([]),
            expect_in: bytes,
        }
    }

    /// WRITE (16).
    pub fn write(lun: u8, lba: u64, blocks: u32, data: Arc<[u8]>) -> Self {
        Self {
            lun,
            cdb: range16(0x8a, lba, blocks),
            data_out: data,
            expect_in: 0,
        }
    }

    /// WRITE (16) that is on stable storage when it is answered.
    pub fn write_fua(lun: u8, lba: u64, blocks: u32, data: Arc<[u8]>) -> Self {
        let mut command = Self::write(lun, lba, blocks, data);
        command.cdb[1] |= 0x08;
        command
    }

    /// WRITE SAME (16) of one block.
    pub fn write_same(lun: u8, lba: u64, blocks: u32, block: &[u8]) -> Self {
        Self {
            lun,
            cdb: range16(0x93, lba, blocks),
            data_out: block.into(),
            expect_in: 0,
        }
    }

    /// WRITE SAME (16) of zeroes that are not sent (NDOB).
    pub fn zero(lun: u8, lba: u64, blocks: u32) -> Self {
        let mut command = Self::write_same(lun, lba, blocks, &[]);
        command.cdb[1] |= 0x01;
        command
    }

    /// UNMAP of one range.
    pub fn unmap(lun: u8, lba: u64, blocks: u32) -> Self {
        let mut list = Vec::with_capacity(24);
        list.extend_from_slice(&[0, 22, 0, 16, 0, 0, 0, 0]);
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
        Self::raw(lun, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list, 0)
    }

    /// SYNCHRONIZE CACHE (16) of everything.
    pub fn flush(lun: u8) -> Self {
        Self::raw(lun, &[0x91], &[], 0)
    }

    /// TEST UNIT READY.
    pub fn test_unit_ready(lun: u8) -> Self {
        Self::raw(lun, &[0; 6], &[], 0)
    }

    /// Standard INQUIRY.
    pub fn inquiry(lun: u8) -> Self {
        Self::raw(lun, &[0x12, 0, 0, 0, 96, 0], &[], 96)
    }

    /// A vital product data page.
    pub fn vital_page(lun: u8, page: u8) -> Self {
        Self::raw(lun, &[0x12, 1, page, 1, 0, 0], &[], 256)
    }

    /// READ CAPACITY (16).
    pub fn read_capacity(lun: u8) -> Self {
        Self::raw(
            lun,
            &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
            &[],
            32,
        )
    }

    /// REPORT TARGET PORT GROUPS.
    pub fn port_groups(lun: u8) -> Self {
        Self::raw(lun, &[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256)
    }

    /// REPORT LUNS.
    pub fn report_luns() -> Self {
        Self::raw(0, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256)
    }
}

fn range16(opcode: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// Size and shape of a disk, from READ CAPACITY (16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes a block.
    pub block_size: u32,
}

impl Capacity {
    /// From the command's parameter data.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let last = u64::from_be_bytes(data.get(..8)?.try_into().ok()?);
        let block_size = u32::from_be_bytes(data.get(8..12)?.try_into().ok()?);
        Some(Self {
            blocks: last.checked_add(1)?,
            block_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stand_where_sbc_wants_them() {
        let command = Command::write(3, 0x0102_0304_0506_0708, 0x0a0b, Arc::from([0; 4]));
        assert_eq!(
            command.cdb,
            [0x8a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x0a, 0x0b, 0, 0]
        );
        let unmap = Command::unmap(0, 7, 9);
        assert_eq!(
            (unmap.data_out.len(), unmap.data_out[15], unmap.data_out[19]),
            (24, 7, 9)
        );
    }

    #[test]
    fn capacity_is_the_last_block_plus_one() {
        let mut data = [0; 32];
        (data[7], data[10]) = (9, 2);
        assert_eq!(
            Capacity::parse(&data),
            Some(Capacity {
                blocks: 10,
                block_size: 512
            })
        );
        assert_eq!(Capacity::parse(&data[..11]), None);
    }
}
