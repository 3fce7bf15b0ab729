//! A directory that is gone when the test is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// See the module. With `LOCKSTEP_KEEP` in the environment it stays.
#[derive(Debug)]
pub struct Directory(PathBuf);

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Directory {
    /// A new one under the system's temporary directory.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn new(name: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "lockstep-test-{name}-{}-{number}",
            std::process::id()
        ));
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::env::var_os("LOCKSTEP_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
