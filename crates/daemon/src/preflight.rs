//! What can be found wrong before anything is started: files and directories that the
//! configuration names.

use crate::config::Config;
use crate::secret::{self, PAIR_SECRET_MIN};
use rustix::fs::{Access, access};

/// Everything that is wrong, each with what to do; empty: nothing. Changes nothing.
#[must_use]
pub fn preflight(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if config.has_partner()
        && let Err(error) = secret::read(&config.partner.secret_file, PAIR_SECRET_MIN)
    {
        problems.push(format!("partner.secret_file: {error}"));
    }
    for directory in &config.storage.directories {
        let shown = directory.display();
        if !directory.is_dir() {
            problems.push(format!(
                "storage.directories: {shown} is no directory; mount its file system, or \
                make it: mkdir -p {shown}"
            ));
        } else if access(
            directory,
            Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        )
        .is_err()
        {
            problems.push(format!(
                "storage.directories: {shown} may not be written by this user; give it \
                to the user that runs the daemon"
            ));
        }
    }
    let state = &config.node.state_directory;
    let shown = state.display();
    if state.exists()
        && access(state, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err()
    {
        problems.push(format!(
            "node.state_directory: {shown} may not be written by this user; give it \
            to the user that runs the daemon"
        ));
    } else if state.exists() && !state.is_dir() {
        problems.push(format!(
            "node.state_directory: {shown} is no directory; name another one"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Address, EXAMPLE};
    use std::path::Path;

    #[test]
    fn files_that_are_missing_are_named_with_what_to_do() {
        let mut config = Config::parse(Path::new("x"), EXAMPLE).unwrap();
        let missing = std::env::temp_dir().join("lockstep-there-is-no-such-directory");
        config.storage.directories = vec![missing.clone()];
        config.node.state_directory = missing.join("state");
        assert!(
            preflight(&config)[0].contains("mkdir -p"),
            "{:?}",
            preflight(&config)
        );
        config.storage.directories = vec![std::env::temp_dir()];
        assert_eq!(preflight(&config), Vec::<String>::new());
        config.partner.secret_file = missing;
        config.partner.sync_remote = vec![Address("10.0.0.2:7400".parse().unwrap())];
        assert!(preflight(&config)[0].contains("write the secret there"));
    }
}
