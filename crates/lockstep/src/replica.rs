//! `lockstep replica …`

use crate::args::ReplicaVerb;
use crate::{config, confirm};
use lockstep_api::Client;
use lockstep_api::volume::ReplicaAt;

pub(crate) fn run(client: &Client, verb: ReplicaVerb, json: bool) -> anyhow::Result<()> {
    match verb {
        ReplicaVerb::Add { volume, image } => {
            let at = ReplicaAt {
                image,
                ..ReplicaAt::default()
            };
            config::changed(&client.add_replica(&volume, &at)?, json)
        }
        ReplicaVerb::Remove {
            volume,
            node,
            confirm,
        } => {
            let lines = [format!(
                "{volume} will have its only copy on this node. The image on node {node} stays."
            )];
            let confirm = confirm::typed(confirm, &volume, &lines)?;
            config::changed(&client.remove_replica(&volume, &node, &confirm)?, json)
        }
        ReplicaVerb::Replace {
            volume,
            image,
            confirm,
        } => {
            let lines = [format!(
                "The copy of {volume} on this node is taken for blank. What only it holds is LOST."
            )];
            let confirm = confirm::typed(confirm, &volume, &lines)?;
            let at = ReplicaAt { image, confirm };
            config::changed(&client.replace_replica(&volume, &at)?, json)
        }
    }
}
