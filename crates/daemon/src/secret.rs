//! Secrets come from files that only their owner can read; never from a command line, never into
//! a log.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Fewer bytes than this can be guessed.
pub const PAIR_SECRET_MIN: usize = 16;

/// More bytes than this are not a secret but the wrong file.
const SECRET_MAX: usize = 4096;

/// Why a secret file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("secret file {}: {source}; write the secret there and give it to the \
        daemon's user with mode 600", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error("secret file {} can be read or changed by every user (mode {mode:o}); \
        make a new secret if that matters, then: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Too short or too long.
    #[error("secret file {} holds {length} bytes; allowed are {min} to {SECRET_MAX}: \
        head -c 32 /dev/urandom | base64 > {}", path.display(), path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// Bytes without the newline at the end.
        length: usize,
        /// The least that is taken.
        min: usize,
    },
}

/// Reads the secret in a file, without newlines at its end; at least `min` bytes.
pub fn read(path: &Path, min: usize) -> Result<Vec<u8>, SecretError> {
    let unreadable = |source| SecretError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut secret = Vec::new();
    let limit = u64::try_from(SECRET_MAX).expect("small") + 1;
    file.take(limit)
        .read_to_end(&mut secret)
        .map_err(unreadable)?;
    while secret
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        secret.pop();
    }
    if secret.len() < min || secret.len() > SECRET_MAX {
        return Err(SecretError::Length {
            path: path.to_owned(),
            length: secret.len(),
            min,
        });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("lockstep-secret-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_loses_its_newline_only() {
        let path = file("good", b"0123456789abcdef \n", 0o600);
        assert_eq!(read(&path, PAIR_SECRET_MIN).unwrap(), b"0123456789abcdef ");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_exposed_short_or_missing_secret_is_refused_with_what_to_do() {
        let path = file("exposed", b"0123456789abcdef", 0o644);
        let error = read(&path, PAIR_SECRET_MIN).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(
            read(&path, PAIR_SECRET_MIN),
            Err(SecretError::Length { length: 5, .. })
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            read(&path, PAIR_SECRET_MIN),
            Err(SecretError::Unreadable { .. })
        ));
    }
}
