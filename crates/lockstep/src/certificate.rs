//! `lockstep certificate`: what the daemon's supervisor runs after it has ended.

use crate::args::CertificateArguments;
use crate::output;
use lockstep_daemon::certificate::certify;
use lockstep_daemon::config::Config;

pub(crate) fn run(arguments: &CertificateArguments, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    let certified = certify(&config)?;
    let run = format!("{:016x}", certified.run.0);
    let took = certified.took.as_millis();
    if json {
        return output::json(&serde_json::json!({
            "run": run,
            "volumes": certified.locked,
            "skipped": certified.skipped,
            "took_ms": u64::try_from(took).unwrap_or(u64::MAX),
        }));
    }
    let volumes = match certified.locked.len() {
        1 => "1 volume".to_owned(),
        count => format!("{count} volumes"),
    };
    output::line(&format!(
        "the partner knows that run {run} of this node has ended, with {volumes}, after {took} ms"
    ))?;
    for skipped in &certified.skipped {
        output::line(&format!(
            "not certified, so the partner waits as for any silence: {skipped}"
        ))?;
    }
    Ok(())
}
