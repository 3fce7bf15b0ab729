//! Who may log in: CHAP both ways, initiator names, and changes made while a node is away.
#![expect(
    clippy::unwrap_used,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::pool::{SetAccount, SetDiscovery};
use lockstep_api::quantity::Size;
use lockstep_api::volume::{CreateVolume, SetAccess};
use lockstep_initiator::client::{Client, ClientError};
use lockstep_initiator::core::chap::Account;
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::{INITIATOR, VOLUME};

const SECRET: &str = "correct horse battery";
const OTHER: &str = "wrong horse batteries";
const TARGET_SECRET: &str = "the target proves it";

fn set(pair: &Pair, node: usize, name: &str, secret: &str) {
    let account = SetAccount {
        name: name.into(),
        secret: secret.into(),
    };
    pair.nodes[node].client().set_account(&account).unwrap();
}

fn account(name: &str, secret: &str) -> Option<Account> {
    Some(Account {
        name: name.into(),
        secret: secret.as_bytes().to_vec(),
    })
}

fn login(pair: &Pair, node: usize, chap: Option<Account>) -> Result<Client, ClientError> {
    Client::login(
        pair.nodes[node].portal,
        Parameters {
            chap,
            ..pair.parameters()
        },
    )
}

fn refused(result: Result<Client, ClientError>) -> String {
    result.expect_err("the login must be refused").to_string()
}

fn with_chap(name: &str) -> Pair {
    let mut pair = Pair::start(name);
    set(&pair, 0, "alice", SECRET);
    set(&pair, 0, "target", TARGET_SECRET);
    let volume = CreateVolume {
        size: Size(SIZE),
        accounts: vec!["alice".into()],
        mutual: Some("target".into()),
        ..CreateVolume::default()
    };
    pair.create(&volume);
    pair
}

#[test]
fn chap_lets_in_who_knows_the_secret_through_either_node() {
    let pair = with_chap("chap");
    for node in 0..2 {
        login(&pair, node, account("alice", SECRET))
            .unwrap()
            .logout()
            .unwrap();
        for wrong in [
            account("alice", OTHER),
            account("bob", SECRET),
            account("target", TARGET_SECRET),
            None,
        ] {
            let said = refused(login(&pair, node, wrong.clone()));
            assert!(said.contains("authentication failure"), "{wrong:?}: {said}");
        }
        assert!(
            !pair.nodes[node].log().contains(SECRET),
            "the secret stands in the log"
        );
    }
}

#[test]
fn the_target_proves_itself_to_who_asks() {
    let pair = with_chap("mutual");
    let mutual = |secret| {
        let parameters = Parameters {
            chap: account("alice", SECRET),
            mutual: account("target", secret),
            ..pair.parameters()
        };
        Client::login(pair.nodes[0].portal, parameters)
    };
    mutual(TARGET_SECRET).unwrap().logout().unwrap();
    assert!(refused(mutual(OTHER)).contains("did not prove itself"));
}

#[test]
fn discovery_asks_for_chap_only_if_it_was_told_to() {
    let pair = with_chap("discovery");
    let discover = |chap| {
        let parameters = Parameters {
            chap,
            ..Parameters::new(INITIATOR, Purpose::Discovery)
        };
        let mut client = Client::login(pair.nodes[1].portal, parameters)?;
        client.discover()
    };
    assert_eq!(discover(None).unwrap()[0].name, pair.target);
    let accounts = vec!["alice".into()];
    pair.nodes[0]
        .client()
        .set_discovery(&SetDiscovery {
            accounts,
            mutual: Some("target".into()),
        })
        .unwrap();
    let asks = || discover(None).is_err();
    lockstep_tests::wait_for(
        "discovery with CHAP",
        std::time::Duration::from_secs(5),
        asks,
    );
    let mut found = discover(account("alice", SECRET)).unwrap();
    found[0].portals.sort();
    let portals: Vec<String> = pair
        .nodes
        .iter()
        .map(|node| format!("{},{}", node.portal, node.number))
        .collect();
    assert_eq!(found[0].portals, portals, "both nodes under one name");
    assert!(discover(account("alice", OTHER)).is_err());
    let mutual = |secret| {
        let parameters = Parameters {
            chap: account("alice", SECRET),
            mutual: account("target", secret),
            ..Parameters::new(INITIATOR, Purpose::Discovery)
        };
        Client::login(pair.nodes[1].portal, parameters)
    };
    let found = mutual(TARGET_SECRET).unwrap().discover().unwrap();
    assert_eq!(found[0].name, pair.target);
    assert!(refused(mutual(OTHER)).contains("did not prove itself"));
}

#[test]
fn an_initiator_that_is_not_on_the_list_is_refused_by_name() {
    let pair = Pair::with_volume("allow");
    let access = SetAccess {
        allow: vec!["iqn.2026-11.test:somebody-else".into()],
        ..SetAccess::default()
    };
    pair.nodes[0].client().set_access(VOLUME, &access).unwrap();
    let limit = std::time::Duration::from_secs(5);
    // The other node takes the change a moment after the one that was told.
    for node in 0..2 {
        lockstep_tests::wait_for("the refusal", limit, || login(&pair, node, None).is_err());
    }
    assert!(refused(login(&pair, 1, None)).contains("not authorised"));
    lockstep_tests::wait_for("the log to name the initiator", limit, || {
        pair.nodes[1].log().contains(INITIATOR)
    });
}

#[test]
fn a_chap_change_while_the_partner_is_down_is_in_force_when_it_opens_its_portal() {
    let mut pair = with_chap("change");
    pair.nodes[1].kill();
    set(&pair, 0, "alice", "a new secret for alice");
    pair.nodes[1].start();
    // From its first login on, the node that was away knows the new secret and not the old one.
    let portal = pair.nodes[1].portal;
    lockstep_tests::wait_for("its portal", std::time::Duration::from_secs(60), || {
        std::net::TcpStream::connect(portal).is_ok()
    });
    assert!(refused(login(&pair, 1, account("alice", SECRET))).contains("authentication failure"));
    login(&pair, 1, account("alice", "a new secret for alice"))
        .unwrap()
        .logout()
        .unwrap();
    pair.wait_mirrored();
}
