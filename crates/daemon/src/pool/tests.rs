//! The pool document: what it may say, and how it is kept and edited.

use super::file::{Edited, PoolFile, differences};
use super::*;
use lockstep_api::pool::{SetAccount, SetDiscovery};
use lockstep_api::volume::{CreateVolume, SetAccess};

const CLUSTER: Uuid = Uuid(7);

fn create(name: &str) -> CreateVolume {
    CreateVolume {
        name: name.into(),
        size: Size(1 << 30),
        ..CreateVolume::default()
    }
}

fn with_volume(pool: &Pool, request: &CreateVolume) -> Result<Pool, PoolError> {
    pool.with_volume(request, Uuid(crate::uuid::new()), "com.example", &[1, 2])
}

fn account(name: &str) -> SetAccount {
    SetAccount {
        name: name.into(),
        secret: "a long secret".into(),
    }
}

/// One volume, one account that it uses.
fn pool() -> Pool {
    let pool = Pool::empty(CLUSTER).with_account(&account("xen")).unwrap();
    let request = CreateVolume {
        accounts: vec!["xen".into()],
        ..create("vm1")
    };
    with_volume(&pool, &request).unwrap()
}

#[test]
fn the_text_reads_back_as_the_same_pool() {
    let pool = pool();
    assert_eq!(Pool::parse(&pool.text()), Ok(pool.clone()));
    assert_eq!(pool.volumes[0].target, "iqn.2026-11.com.example:vm1");
    assert_eq!(
        Pool::parse(&Pool::empty(CLUSTER).text()),
        Ok(Pool::empty(CLUSTER))
    );
}

#[test]
fn secrets_are_masked_wherever_people_look() {
    let pool = pool();
    assert!(!mask(&pool.text()).contains("a long secret"));
    assert!(!format!("{pool:?}").contains("a long secret"));
    let other = pool.with_account(&SetAccount {
        secret: "another secret".into(),
        ..account("xen")
    });
    let lines = differences(&pool.text(), &other.unwrap().text());
    assert_eq!(
        lines,
        ["- secret = \"********\"", "+ secret = \"********\""]
    );
    let broken = pool.text().replace("\"a long secret\"", "\"a long secret");
    assert!(
        !Pool::parse(&broken)
            .unwrap_err()
            .to_string()
            .contains("long secret")
    );
}

#[test]
fn names_are_taken_once_and_must_be_known() {
    let pool = pool();
    assert!(matches!(
        with_volume(&pool, &create("vm1")),
        Err(PoolError::Exists { .. })
    ));
    assert!(matches!(
        pool.without_volume("vm2"),
        Err(PoolError::Unknown { .. })
    ));
    assert!(matches!(
        pool.without_account("kvm"),
        Err(PoolError::Unknown { .. })
    ));
    assert!(matches!(
        pool.without_account("xen"),
        Err(PoolError::InUse { .. })
    ));
    let open = pool.with_access("vm1", &SetAccess::default()).unwrap();
    assert_eq!(open.without_account("xen").unwrap().accounts, []);
    let discovery = |accounts: &[&str], mutual: Option<&str>| {
        pool.with_discovery(&SetDiscovery {
            accounts: accounts.iter().map(ToString::to_string).collect(),
            mutual: mutual.map(Into::into),
        })
    };
    for unknown in [
        discovery(&["nobody"], None),
        discovery(&["xen"], Some("nobody")),
    ] {
        let error = unknown.unwrap_err().to_string();
        assert!(error.contains("lockstep account set nobody"), "{error}");
    }
    let error = discovery(&[], Some("xen")).unwrap_err().to_string();
    assert!(error.contains("mutual together with accounts"), "{error}");
    let proving = discovery(&["xen"], Some("xen")).unwrap();
    assert_eq!(Pool::parse(&proving.text()).unwrap(), proving);
}

#[test]
fn impossible_volumes_are_refused_with_what_is_allowed() {
    let base = Pool::empty(CLUSTER);
    let place = |node, image: &str| lockstep_api::volume::ReplicaPlace {
        node,
        image: image.into(),
    };
    let cases = [
        (
            CreateVolume {
                name: "Vm_1".into(),
                ..create("a")
            },
            "a-z",
        ),
        (
            CreateVolume {
                name: String::new(),
                ..create("a")
            },
            "a-z",
        ),
        (
            CreateVolume {
                size: Size((1 << 30) + 1),
                ..create("a")
            },
            "whole blocks",
        ),
        (
            CreateVolume {
                size: Size(0),
                ..create("a")
            },
            "1MiB to 256TiB",
        ),
        (
            CreateVolume {
                block_size: Some(1000),
                ..create("a")
            },
            "512 or 4096",
        ),
        (
            CreateVolume {
                allow: vec!["host1".into()],
                ..create("a")
            },
            "no iSCSI name",
        ),
        (
            CreateVolume {
                accounts: vec!["b".into()],
                ..create("a")
            },
            "no account \"b\"",
        ),
        (
            CreateVolume {
                replicas: vec![place(1, "x"), place(1, "y")],
                ..create("a")
            },
            "one on each",
        ),
        (
            CreateVolume {
                replicas: vec![place(1, "../x")],
                ..create("a")
            },
            "without ..",
        ),
    ];
    for (request, expected) in cases {
        let error = with_volume(&base, &request).unwrap_err().to_string();
        assert!(error.contains(expected), "{request:?}: {error}");
    }
    let short = SetAccount {
        name: "xen".into(),
        secret: "short".into(),
    };
    assert!(
        base.with_account(&short)
            .unwrap_err()
            .to_string()
            .contains("12 to 255")
    );
}

#[test]
fn unknown_keys_in_a_hand_edited_file_are_refused_with_their_line() {
    let text = format!("{}colour = \"red\"\n", pool().text());
    let error = Pool::parse(&text).unwrap_err().to_string();
    assert!(
        error.contains("colour") && error.contains("line "),
        "{error}"
    );
}

#[test]
fn an_edit_is_noticed_and_never_lost() {
    let state = std::env::temp_dir().join(format!("lockstep-pool-{}", std::process::id()));
    let file = PoolFile::new(&state).unwrap();
    let first = pool();
    assert_eq!(file.edited(&first.text()).unwrap(), Edited::No);
    assert!(!file.show(&first.text(), "").unwrap());
    assert_eq!(file.edited(&first.text()).unwrap(), Edited::No);
    let edit = first.text().replace("a long secret", "a hand-made one");
    std::fs::write(file.path(), &edit).unwrap();
    assert_eq!(
        file.edited(&first.text()).unwrap(),
        Edited::Yes(edit.clone())
    );
    let second = first.with_access("vm1", &SetAccess::default()).unwrap();
    assert!(file.show(&second.text(), &first.text()).unwrap());
    let aside = state.join("pool.d/pool.toml.edited");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), edit);
    assert_eq!(file.edited(&second.text()).unwrap(), Edited::No);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_dir_all(state).unwrap();
}

#[test]
fn initiators_are_told_the_portals_of_both_nodes_under_one_name() {
    let text = crate::config::EXAMPLE;
    let config = crate::config::Config::parse(std::path::Path::new("x"), text).unwrap();
    let partner = PoolNode {
        number: 2,
        name: "b".into(),
        portals: vec![Address("192.0.2.2:3260".parse().unwrap())],
    };
    let pool = pool().with_node(&partner).unwrap();
    assert_eq!(pool.with_node(&partner), None);
    let mut numbers = settings::TargetNumbers::default();
    let settings = settings::iscsi(&pool, &config, &mut numbers);
    let portals: Vec<(String, u16)> = settings
        .portals
        .iter()
        .map(|p| (p.address.to_string(), p.group))
        .collect();
    assert_eq!(
        portals,
        [("192.0.2.1:3260".into(), 1), ("192.0.2.2:3260".into(), 2)]
    );
    assert_eq!(settings.targets[0].chap[0].name, "xen");
    let spec = pool.volumes[0].spec(1, lockstep_mirror::control::Incarnation(5));
    assert_eq!(spec.partner, Some(lockstep_mirror::control::NodeId(2)));
}

#[test]
fn a_target_that_comes_again_is_another_one() {
    let mut numbers = settings::TargetNumbers::default();
    let pool = pool();
    let first = numbers.number(&pool.volumes[0].target);
    numbers.keep(&pool);
    assert_eq!(numbers.number(&pool.volumes[0].target), first);
    numbers.keep(&Pool::empty(CLUSTER));
    assert_ne!(numbers.number(&pool.volumes[0].target), first);
}
