//! Foreign clients that the interoperability tests drive: installed from Debian when we are root,
//! otherwise named together with the command that installs them.

use crate::command;
use anyhow::{Result, bail};
use std::process::Command;

/// What is needed: a program that the package brings, and the package.
const NEEDED: [(&str, &str); 10] = [
    ("iscsi-test-cu", "libiscsi-bin"),
    ("iscsi-ls", "libiscsi-bin"),
    ("qemu-img", "qemu-utils"),
    ("mkfs.ext4", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("tgtd", "tgt"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("umount", "mount"),
    ("setpriv", "util-linux"),
];
/// qemu's iSCSI driver is a module of its own, without a program to look for.
const QEMU_ISCSI: (&str, &str) = ("block-iscsi.so", "qemu-block-extra");

/// Makes sure that everything is there.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    if !is_root() {
        bail!("the foreign clients are missing; install them with: sudo {install}");
    }
    // Package lists may be older than the archive: refresh them once, then install.
    command::run(Command::new("apt-get").args(["update", "-q"]))?;
    command::run(
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn missing() -> Vec<&'static str> {
    let mut missing: Vec<_> = NEEDED
        .iter()
        .filter(|(program, _)| !program_exists(program))
        .map(|&(_, package)| package)
        .collect();
    if !qemu_module_exists(QEMU_ISCSI.0) {
        missing.push(QEMU_ISCSI.1);
    }
    missing.dedup();
    missing
}

fn program_exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}

fn qemu_module_exists(module: &str) -> bool {
    let Ok(libraries) = std::fs::read_dir("/usr/lib") else {
        return false;
    };
    libraries
        .flatten()
        .any(|entry| entry.path().join("qemu").join(module).is_file())
}

/// Whether the effective user is root (the second number of the `Uid:` line).
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| effective_uid(&status) == Some(0))
}

fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(program_exists("sh"));
        assert!(!program_exists("no-such-program-anywhere"));
    }
}
