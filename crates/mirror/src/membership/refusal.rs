//! Metadata that belong to something else: refused before anything is changed.

use super::Settings;
use crate::superblock::Superblock;
use alloc::string::String;

/// Why a superblock does not belong to this volume here.
pub(super) fn refusal(settings: &Settings, found: &Superblock) -> Option<String> {
    let wrong = if found.volume != settings.volume {
        alloc::format!("belongs to volume {:032x}", found.volume.0)
    } else if found.node != settings.me {
        alloc::format!(
            "was written by node {}, this is node {}",
            found.node.0,
            settings.me.0
        )
    } else if found.size != settings.size {
        alloc::format!(
            "says {} bytes, the configuration {}",
            found.size,
            settings.size
        )
    } else if found.block_size != settings.block_size {
        alloc::format!(
            "says blocks of {} bytes, the configuration {}",
            found.block_size,
            settings.block_size
        )
    } else {
        return None;
    };
    Some(alloc::format!(
        "the metadata {wrong}: check the paths of image and metadata; nothing was changed"
    ))
}
