//! The admin API over a real socket.

use super::*;
use crate::admin::json;
use lockstep_api::pool::{Changed, SetAccount};
use lockstep_api::quantity::Size;
use lockstep_api::volume::{CreateVolume, Volume};
use lockstep_api::{Client, ClientError};
use std::path::PathBuf;

fn socket(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lockstep-http-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// Serves the API with these answers while `talk` uses a client.
fn with_server<T: Send + 'static>(
    name: &str,
    answer: fn(Request) -> Answer,
    talk: impl FnOnce(Client) -> T + Send + 'static,
) -> T {
    let path = socket(name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(async {
        let (asker, mut asked) = mpsc::channel(REQUESTS_WAITING);
        let listener = bind_admin(&path).unwrap();
        tokio::spawn(serve_admin(listener, asker));
        tokio::spawn(async move {
            while let Some(Asked { request, reply }) = asked.recv().await {
                let _ = reply.send(answer(request));
            }
        });
        let client = Client::new(&path);
        tokio::task::spawn_blocking(move || talk(client))
            .await
            .unwrap()
    });
    std::fs::remove_file(path).unwrap();
    result
}

#[test]
fn requests_arrive_whole_and_answers_come_back() {
    let answer = |request| match request {
        Request::Create(create) => json(&Volume {
            name: create.name,
            size: create.size.0,
            ..Volume::default()
        }),
        Request::Delete { name, confirm } if name == confirm => json(&Changed {
            generation: 9,
            note: name,
        }),
        Request::SetAccount(SetAccount { name, secret }) => json(&Changed {
            generation: u64::try_from(secret.len()).unwrap(),
            note: name,
        }),
        other => Err(Refusal::new(
            Class::Conflict,
            format!("{other:?}"),
            "why",
            "do",
        )),
    };
    with_server("whole", answer, |client| {
        let create = CreateVolume {
            name: "a".into(),
            size: Size(1 << 20),
            ..CreateVolume::default()
        };
        assert_eq!(client.create_volume(&create).unwrap().size, 1 << 20);
        assert_eq!(
            client.delete_volume("a b/c", "a b/c").unwrap().note,
            "a b/c"
        );
        let account = SetAccount {
            name: "xen".into(),
            secret: "a long secret".into(),
        };
        assert_eq!(client.set_account(&account).unwrap().generation, 13);
        let Err(ClientError::Refused(error)) = client.events(7) else {
            panic!("refused")
        };
        assert_eq!(error.what, "Events { after: 7 }");
    });
}

#[test]
fn what_is_not_understood_is_refused_in_json() {
    with_server(
        "bad",
        |_| json(&0),
        |client| {
            let refused = |path: &str| match client.get::<u32>(path) {
                Err(ClientError::Refused(error)) => error.to_string(),
                other => panic!("{other:?}"),
            };
            assert!(refused("/v2/status").contains("there is no such thing"));
            assert!(refused("/v1/events?after=x").contains("it is no number"));
            assert!(refused("/v1/discovery").contains("does not take GET"));
        },
    );
}

#[test]
fn a_wrong_body_is_refused_without_being_repeated() {
    let refusal = parse::<SetAccount>(br#"{"name": "xen", "secret": 1234567890123}"#).unwrap_err();
    assert_eq!(refusal.class, Class::Bad);
    let refusal = parse::<SetAccount>(br#"{"name": "xen", "secret": "hidden" "#).unwrap_err();
    assert!(!refusal.error.to_string().contains("hidden"));
    let refusal =
        parse::<CreateVolume>(br#"{"name": "a", "size": "1GiB", "colour": 1}"#).unwrap_err();
    assert!(refusal.error.why.contains("unknown field `colour`"));
}

#[test]
fn a_socket_left_by_a_dead_daemon_is_replaced_and_a_living_one_is_not() {
    let path = socket("stale");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let living = bind_admin(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(
        bind_admin(&path)
            .unwrap_err()
            .to_string()
            .contains("another daemon")
    );
    drop(living);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(
        bind_admin(&path)
            .unwrap_err()
            .to_string()
            .contains("no socket")
    );
    std::fs::remove_file(path).unwrap();
}
